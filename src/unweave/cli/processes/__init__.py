"""A command that several processes run together, as torchrun starts them."""

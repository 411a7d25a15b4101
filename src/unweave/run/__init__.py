"""One run from recipe to record: what is read, written and resumed."""

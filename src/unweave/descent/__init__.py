"""The one training loop, and all that it descends: objectives, lookaheads, rules, masks and feeds."""

"""Weights as dictionaries: their arithmetic, gradients at a step, and the sums of many processes."""

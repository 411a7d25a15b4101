"""Weights as dictionaries: arithmetic, gradients at a step, and sums over processes."""

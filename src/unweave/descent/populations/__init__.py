"""Populations: many models of one architecture over one data set, trained as one batched model.

For attacks that compare models; it knows no attack and no metric.
"""

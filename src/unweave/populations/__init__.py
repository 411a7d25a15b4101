"""Populations: many models of one architecture over one data set, for attacks that compare models.

This room lies between `methods` and `audits`: it trains by the loop of `descent` and unlearns by `methods`,
and audits and benchmarks read what it trained. It knows no attack and no metric.
"""

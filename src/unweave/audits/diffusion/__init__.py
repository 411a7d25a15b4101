"""Audits of generators: `exam` draws images, `recogniser` classifies them, `metrics` lists the figures.

`attacks` tries to recover a class (by `sweeps`, `conditioning` and `revival`), and `verdict` judges.
"""

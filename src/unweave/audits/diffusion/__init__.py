"""Audits of generators: `exam` asks, `recogniser` says what images show, `metrics` lists the figures.

`attacks` tries to get a class back (by `sweeps`, `conditioning` and `revival`), and `verdict` judges.
"""

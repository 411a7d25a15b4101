"""Audits by equivalence: scores, margins and verdicts, and what is asked of each family of models."""

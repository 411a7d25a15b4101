"""Audits by equivalence: scores, margins and verdicts, and the exam of each family of models."""

"""Families of models: each file ties a task to its methods, data, models and audit."""

"""The error of a failed run; bad input raises a `ValueError` before the run."""

__all__ = ["Failed"]


class UnfitProcesses(ValueError):
    """What several processes, or a model sharded over them, can't do right."""


class Failed(RuntimeError):
    """A run that ended without a usable model: NaN, collapse, or nothing changed."""

"""The error of a failed run; bad input raises a `ValueError` before the run."""

__all__ = ["Failed"]


class Failed(RuntimeError):
    """A run that ended without a usable model: NaN, collapse, or nothing changed."""

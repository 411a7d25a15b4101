"""The error of a failed run; bad input raises a `ValueError` before the run."""


class Failed(RuntimeError):
    """A run that ended without a usable model: NaN, collapse, or nothing changed."""

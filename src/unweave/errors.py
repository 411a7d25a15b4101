"""What may go wrong once a run has begun; bad input is a `ValueError` before that."""


class Failed(RuntimeError):
    """A run that ended without a usable model: NaN, collapse, or nothing changed."""

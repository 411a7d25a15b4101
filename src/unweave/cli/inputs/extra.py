"""The extra of text-to-image models."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def require_diffusion() -> Iterator[None]:
    """Around imports for text-to-image models.

    Raises:
        ValueError: If the extra is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{error}: text-to-image needs the extra: run pip install 'unweave[diffusion]'"
        ) from error

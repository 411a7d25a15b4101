"""Files that are there whole or not at all, and their digests: a full disk leaves what was there before."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: str | Path, text: str) -> None:
    """Writes the whole text, as UTF-8, or nothing."""
    with draft(Path(path)) as beside:
        beside.write_text(text, encoding="utf-8")
        sync(beside)
        os.replace(beside, path)


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A place to write what is to become `path`; what is left there when the body ends is deleted.

    It lies beside the path: a rename across file systems is not atomic.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

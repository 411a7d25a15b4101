"""Atomic files and their digests: after a full disk the old file is still there."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, text: str) -> None:
    """Writes a text as UTF-8, atomically."""
    with draft(Path(path)) as draft_path:
        draft_path.write_text(text, encoding="utf-8")
        sync(draft_path)
        os.replace(draft_path, path)


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write and rename to `path`; deletes what is left of it after the body.

    It is next to `path`, because a rename across file systems is not atomic.
    """
    draft_path = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft_path
    finally:
        draft_path.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Gives a file the permissions of a new file; safetensors lets only the owner read its files."""
    with draft(path) as fresh:
        fresh.touch()
        shutil.copymode(fresh, path)


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_object(path: Path, advice: str = "") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: The file, which exists.
        advice: The end of an error: what to do.

    Raises:
        ValueError: If it holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}){advice}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, found {type(content).__name__}{advice}")
    return content

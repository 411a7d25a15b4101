"""Reads records in their compact form: a summary, and beside it tables in Parquet and pictures in WebP.

A compact record `NAME.json` is a record whose large parts are empty. Its key `files` names every file in the
folder `NAME`, with its SHA-256 and the place of its content, which for a table has the names of its columns:

    ["stages", "{stage}", "methods", "{method}", "per_seed", "{metric}", "[seed]"]

`{metric}` is a column of keys, `[seed]` one of positions in a list. Each row is one value: `value` is its
number, and `text` its JSON unless it is a float or null. A row whose last keys are null belongs to the place
that ends before them.

What is verified: the bytes of every file, against the summary, so that no part comes from another study. The
summary has no digest of its own. A record of schema 2 has the digest of the whole record that is returned
here. Where its pictures were encoded anew, the writer computed that digest: it is not the one of the run.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

from unweave.record.files import read_object

FILES = "files"
"""The key of a summary under which its files stand."""
Keys = Sequence[str | int]


def read_record(path: Path) -> dict[str, Any]:
    """Reads a record in any form, without a check of its schema.

    Raises:
        ValueError: If it is not JSON, or one of its files is missing or was changed.
    """
    return restore(read_object(path), path)


def restore(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns the whole record of a summary; a record without files is whole.

    Args:
        record: What the file holds.
        path: The file, next to the folder of its tables and pictures.

    Raises:
        ValueError: If a file is missing or was changed, or what the summary says of it makes no sense.
    """
    whole_record = {key: value for key, value in record.items() if key != FILES}
    try:
        for name, about in record.get(FILES, {}).items():
            place, content = about["place"], read_unchanged(path.with_suffix("") / name, about["sha256"])
            if name.endswith(".parquet"):
                for keys, value in read_rows(content, place):
                    put(whole_record, keys, value)
            else:
                put(whole_record, place, as_uri(content))
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path}: {FILES!r} must hold the SHA-256 of every file and the place of its content"
        ) from error
    return whole_record


def read_unchanged(path: Path, sha256: str) -> bytes:
    """Reads a file of a record.

    Raises:
        ValueError: If it is missing, or has another digest.
    """
    advice = "put back the summary and its folder as they were written together"
    if not path.is_file():
        raise ValueError(f"expected {path}, a part of the record, found none: {advice}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is not the file that the summary of its record names: {advice}")
    return content


def read_rows(content: bytes, place: Sequence[str]) -> Iterator[tuple[Keys, Any]]:
    """Yields the values of a table, each with its keys from the top of the record."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(pyarrow.BufferReader(content)).to_pydict()
    columns = [table[part[1:-1]] if part[0] in "{[" else repeat(part) for part in place]
    for *keys, value, text in zip(*columns, table["value"], table["text"], strict=False):
        yield [key for key in keys if key is not None], value if text is None else json.loads(text)


def put(place: Any, keys: Keys, value: object) -> None:
    """Puts a value below `place`; what is missing on the way is made, and lists grow at their end."""
    for key, next_key in pairwise(keys):
        place = child(place, key, [] if isinstance(next_key, int) else {})
    child(place, keys[-1], value)


def child(place: Any, key: str | int, default: object) -> Any:
    """The value under a key or at a position; `default`, stored there, if there is none or an empty text."""
    if isinstance(place, dict):
        if not place.get(key):
            place[key] = default
    elif key == len(place):
        place.append(default)
    return place[key]


def as_uri(content: bytes) -> str:
    """A picture in WebP as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"

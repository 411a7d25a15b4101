"""What is made once and read afterwards: a JSON file that names the digest of all that it depends on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unweave.record.files import read_object, write_atomically

Content = Mapping[str, Any]


def read_or_make(place: Path, key: str, make: Callable[[], Content]) -> Content:
    """The content of `place`.json if it has this key; otherwise what `make` returns, written whole.

    Raises:
        ValueError: If the file holds no JSON object.
    """
    path = append_suffix(place, "json")
    found = read_object(path, ": delete it, and it is made again") if path.exists() else {}
    if found.get("key") != key:
        made = {"key": key, **make()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(made))
        found = json.loads(path.read_text(encoding="utf-8"))
    return found


def file_name(name: str) -> str:
    """A method's name as a file has it: a name of several stages joins them by colons, which not all may."""
    return name.replace(":", "%3A")


def append_suffix(place: Path, suffix: str) -> Path:
    """The file of a place that ends so; a name may hold dots."""
    return place.with_name(f"{place.name}.{suffix}")

"""A cache of JSON files, each with the digest of everything it depends on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unweave.record.files import read_object, write_atomically

Content = Mapping[str, Any]


def read_or_make(place: Path, key: str, make: Callable[[], Content]) -> Content:
    """The content of `place`.json if it has this key; otherwise the result of `make`, written atomically.

    Raises:
        ValueError: If the file holds no JSON object.
    """
    path = append_suffix(place, "json")
    stored_content = read_object(path, ": delete it, and it is made again") if path.exists() else {}
    if stored_content.get("key") != key:
        content = {"key": key, **make()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content))
        stored_content = json.loads(path.read_text(encoding="utf-8"))
    return stored_content


def file_name(name: str) -> str:
    """A method's name in file names, without the colons of pipelines, which some systems forbid."""
    return name.replace(":", "%3A")


def append_suffix(place: Path, suffix: str) -> Path:
    """Appends a suffix to the name of a place, which may contain dots."""
    return place.with_name(f"{place.name}.{suffix}")

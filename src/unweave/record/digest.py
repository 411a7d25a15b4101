"""The digest of a record: whether it is as it was written. It is no signature.

It has no key, so whoever changes a record on purpose can change its digest as well. It finds an edit, a bad
merge, a truncated copy; for proof of who wrote a record, sign the file. What a changed digest can't hide, the
evidence beside a record may show: see `unweave.bench.verify_figures`.

The digest is the SHA-256 of the record as canonical JSON without it: keys in order, no spaces, ASCII, numbers
as Python writes them, null for what is not finite. Order and spacing of the file make no difference.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.record.json_values import to_json_values

KEY = "digest"
SHOWN = 12
"""Digits of a digest that an error shows."""


def digest_of(record: Mapping[str, Any]) -> str:
    """The digest of a record, with or without one."""
    content = to_json_values({key: value for key, value in record.items() if key != KEY})
    read = json.loads(json.dumps(content, allow_nan=False))  # on disk, keys that are numbers are text
    text = json.dumps(read, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as JSON knows it, with its digest."""
    content = {key: value for key, value in record.items() if key not in ("schema", KEY)}
    return {"schema": record["schema"], KEY: digest_of(record), **to_json_values(content)}


def refuse_changed(record: Mapping[str, Any], path: Path) -> None:
    """Raises a ValueError that names the file if a record lacks its digest, or has another's."""
    found, own = record.get(KEY), digest_of(record)
    advice = f"put the original back, or make it again with {rerun_command(record)}"
    if found is None:
        raise ValueError(f"{path} has no digest, with which every record is written: {advice}")
    if found != own:
        both = f"its digest is {found[:SHOWN]}, its content has {own[:SHOWN]}"
        raise ValueError(f"{path} was changed after it was written: {both}: {advice}")


def rerun_command(record: Mapping[str, Any]) -> str:
    """The command that makes a record again."""
    recipes = [name for name, stage in record["stages"].items() if stage["recipe"]]
    return f"unweave bench {' '.join(recipes)}" if recipes else "unweave audit"

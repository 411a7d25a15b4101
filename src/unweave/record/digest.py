"""The digest of a record, which detects changes. It is no signature.

It has no key, so a deliberate forger can also change the digest. It detects an edit, a bad merge or a
truncated copy; to prove the author of a record, sign the file. The evidence next to a record can expose a
forgery: see `unweave.bench.verify_figures`.

The digest is the SHA-256 of the record as canonical JSON without it: keys in order, no spaces, ASCII, numbers
as Python writes them, null for numbers that are not finite. Order and spacing of the file make no difference.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "digest"
DIGITS = 12
"""The number of digits of a digest in an error."""


def digest_of(record: Mapping[str, Any]) -> str:
    """The digest of a record, ignoring a digest it may contain."""
    content = to_json_values({key: value for key, value in record.items() if key != KEY})
    values = json.loads(json.dumps(content, allow_nan=False))  # numeric keys become text on disk
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as JSON values, with its digest."""
    content = {key: value for key, value in record.items() if key not in ("schema", KEY)}
    return {"schema": record["schema"], KEY: digest_of(record), **to_json_values(content)}


def refuse_changed(record: Mapping[str, Any], path: Path) -> None:
    """Raises a ValueError that names the file if a record has no digest or a wrong one."""
    stored_digest, actual_digest = record.get(KEY), digest_of(record)
    advice = f"put the original back, or make it again with {rerun_command(record)}"
    if stored_digest is None:
        raise ValueError(f"{path} has no digest, with which every record is written: {advice}")
    if stored_digest != actual_digest:
        difference = f"its digest is {stored_digest[:DIGITS]}, its content has {actual_digest[:DIGITS]}"
        raise ValueError(f"{path} was changed after it was written: {difference}: {advice}")


def rerun_command(record: Mapping[str, Any]) -> str:
    """The command that makes a record again; capitals stand for what the record does not know."""
    if "qualification" in record:
        return "unweave qualify MODEL"
    recipes = {name: stage["recipe"] for name, stage in record["stages"].items() if stage["recipe"]}
    if not recipes:
        return "unweave audit RUN"
    if any("given" in recipe for recipe in recipes.values()):
        return "unweave bench MODEL REQUEST"
    trials = max(
        (stage["tuned"]["trials"] for stage in record["stages"].values() if "tuned" in stage), default=0
    )
    tune = f" --tune {trials}" if trials else ""
    budgets = sorted(
        {each for frontier in record.get("frontier", {}).values() for each in frontier["budgets"]}
    )
    if not (budgets and trials):  # settings at a budget are a recipe of their own
        return f"unweave bench {' '.join(recipes)}{tune}"
    names = dict.fromkeys(name.partition("@")[0] for name in recipes)
    return f"unweave bench {' '.join(names)} --budgets {','.join(f'{each:g}' for each in budgets)}{tune}"


def to_json_values(value: Any) -> Any:
    """Converts to JSON values: tuples become lists, numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: to_json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

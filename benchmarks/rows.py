"""Rows of a record: each has its settings in its name, and the environment that it was measured in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.record.files import read_object, write_atomically

Row = dict[str, Any]
ENVIRONMENT = "environment"
DIGITS = 4
"""Significant digits of a number: the third says nothing about seeds any more."""


def read_rows(place: Path, part: str) -> dict[str, Row]:
    """The rows of a record, by the name of their part in it; none if there is no record."""
    return read_object(place)[part] if place.exists() else {}


def write_rows(place: Path, part: str, rows: Mapping[str, Row]) -> None:
    """Writes the rows of a record."""
    write_json(place, {part: rows})


def write_json(place: Path | None, value: object) -> None:
    """Writes a value as JSON without spaces, atomically, if there is a place for it."""
    if place is not None:
        write_atomically(place, json.dumps(value, separators=(",", ":")) + "\n")


def round_numbers(value: Any, digits: int = DIGITS) -> Any:  # noqa: ANN401  JSON
    """Numbers with a few significant digits, also in tables and lists."""
    if isinstance(value, Mapping):
        return {key: round_numbers(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_numbers(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value

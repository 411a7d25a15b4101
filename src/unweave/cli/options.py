"""The flags of every verb, and the parsers of their values."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cyclopts import Parameter

from unweave.methods import method_named


@Parameter(name="*")
@dataclass(frozen=True)
class CommonFlags:
    """The flags of every verb.

    Args:
        out: The output folder. If it exists, a numbered sibling is used, unless it holds the same run, which
            is then resumed.
        json: Print one JSON object instead of text.
        device: The device of the models, such as cuda; by default their own.
        seed: The seed of all randomness; for several trainings, the first of their seeds.
        quiet: Show no progress.
    """

    out: Path | None = None
    json: bool = False
    device: str | None = None
    seed: int | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"--seed must be at least 0, found {self.seed}")
        if self.device is not None:
            refuse_absent(self.device)


DEFAULTS = CommonFlags()


def refuse_absent(device: str) -> None:
    """Raises if this machine lacks the device."""
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device must be cpu or a device of this machine, found {device!r}: {reason}"
        ) from error


EVERY = "all"
"""The name that stands for all methods."""


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Parses and checks `--methods a,b`; None for all."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError(f"--methods must name at least one method, found {text!r}")
    for name in names:
        method_named(name)
    return names


def parse_fractions(text: str | None) -> tuple[float, ...] | None:
    """Parses `--budgets 0.1,0.3`; None for those of the recipes."""
    if text is None:
        return None
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--budgets must be numbers with commas between, such as 0.1,0.3, found {text!r}"
        ) from error


def parse_settings(assignments: Iterable[str], flag: str = "--set") -> dict[str, Any]:
    """Parses `--set how.lr=0.1` and the like into tables; a value is JSON, or else text."""
    settings: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.split(".")):
            raise ValueError(f"{flag} must be field=value, such as how.lr=0.1, found {assignment!r}")
        set_path(settings, path.split("."), parse_value(text), f"{flag} {assignment}", flag)
    return settings


def set_path(table: dict[str, Any], path: list[str], value: object, assignment: str, flag: str) -> None:
    """Sets the value at a path of nested tables."""
    for key in path[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ValueError(f"{assignment} sets a field of {key!r}, which another {flag} gives a value")
    table[path[-1]] = value


def parse_value(text: str) -> object:
    """Parses a JSON number, truth value, null or list; other text stays text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text

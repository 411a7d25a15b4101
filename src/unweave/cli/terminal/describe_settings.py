"""Descriptions of the settings of a method, read from the docstrings of its classes."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

from unweave.descent.descend import Descent
from unweave.methods.configure import stages_of
from unweave.methods.lora import LoRA
from unweave.tables import as_table, kind_of, nested_kinds

T = TypeVar("T")

KIND = "kind"
"""The last name of a path that selects one of several dataclasses."""


def by_stage(method: object, of: Callable[[object, str], Mapping[str, T]]) -> dict[str, T]:
    """What `of` finds in each stage of a method, by dotted paths that begin with the stage's name."""
    return {
        path: each for prefix, stage in stages_of(method).items() for path, each in of(stage, prefix).items()
    }


def setting_meanings(method: object) -> dict[str, str]:
    """The meaning of each setting, by its dotted path for `--set`; empty if its class has no description."""
    return by_stage(method, meanings_in)


def meanings_in(settings: object, prefix: str = "") -> dict[str, str]:
    """The meaning of each setting of a dataclass."""
    descriptions, kinds, meanings = parse_args_section(type(settings)), nested_kinds(type(settings)), {}
    for name, plain_value in as_table(settings).items():
        value, path, meaning = getattr(settings, name), f"{prefix}{name}", descriptions.get(name, "")
        if isinstance(plain_value, Mapping) and is_dataclass(value):
            meanings |= {f"{path}.{KIND}": meaning} if len(kinds[name]) > 1 else {}
            meanings |= meanings_in(value, f"{path}.")
        else:
            meanings[path] = meaning
    return meanings


def changed_settings(method: object) -> dict[str, Any]:
    """The settings that differ from the defaults of their classes, by their dotted paths for `--set`.

    LoRA's come first, by their flags.
    """
    additions = {"--rank": method.rank, "--layers": method.layers} if isinstance(method, LoRA) else {}
    changes = {name: value for name, value in additions.items() if value is not None}
    return changes | by_stage(method, changes_in)


def changes_in(settings: object, prefix: str = "", usual: object = None) -> dict[str, Any]:
    """The settings of a dataclass that differ from those of another one, by default of a new one."""
    usual, changes = type(settings)() if usual is None else usual, {}
    for each in fields(cast(Any, settings)):
        value, default, path = getattr(settings, each.name), getattr(usual, each.name), f"{prefix}{each.name}"
        if value == default:
            continue
        if not is_dataclass(value):
            changes[path] = as_table(value)
        elif type(value) is type(default):
            changes |= changes_in(value, f"{path}.", default)
        else:
            changes |= {f"{path}.{KIND}": kind_of(type(value))} | changes_in(value, f"{path}.")
    return changes


def setting_choices(method: object) -> dict[str, dict[str, str]]:
    """The dataclasses that a setting accepts and what each does, by the path of the setting."""
    return by_stage(method, choices_in)


def choices_in(settings: object, prefix: str = "") -> dict[str, dict[str, str]]:
    """The dataclasses that each field of a dataclass accepts, if there is a choice."""
    choices: dict[str, dict[str, str]] = {}
    for name, kinds in nested_kinds(type(settings)).items():
        value, path = getattr(settings, name), f"{prefix}{name}"
        if len(kinds) > 1 or (kinds and not is_dataclass(value)):
            choices[path] = {kind_of(kind): first_line(kind) for kind in kinds}
        choices |= choices_in(value, f"{path}.") if is_dataclass(value) else {}
    return choices


def first_line(kind: type) -> str:
    """The first line of the docstring of a class."""
    return plain_text((inspect.getdoc(kind) or "").partition("\n\n")[0])


def parse_args_section(kind: type) -> Mapping[str, str]:
    """Parses the section `Args:` of a class's docstring: one line of text per name."""
    section = re.search(r"^Args:\n((?: .*\n?|\n)*)", inspect.getdoc(kind) or "", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: plain_text(text) for name, text in entries}


def plain_text(text: str) -> str:
    """A text in one line, with the source of its formulas."""
    return re.sub(":math:`([^`]*)`", r"\1", " ".join(text.split()))


def descents(method: object) -> dict[str, Descent]:
    """The descents in a method by their dotted paths."""
    return by_stage(method, descents_in)


def descents_in(settings: object, prefix: str = "") -> dict[str, Descent]:
    """The descents in a dataclass and its nested dataclasses."""
    if not is_dataclass(settings):
        return {}
    inner = {f"{prefix}{each.name}": getattr(settings, each.name) for each in fields(cast(Any, settings))}
    return {
        place: how
        for path, value in inner.items()
        for place, how in (
            {path: value} if isinstance(value, Descent) else descents_in(value, f"{path}.")
        ).items()
    }

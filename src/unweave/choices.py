"""Checks of settings: one of a few values, a number in an interval, or a pattern.

Without them a misspelt choice would act as another one, and a negative weight would train on the forget set.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def refuse_unknown_choices(settings: object) -> None:
    """Raises if a dataclass has a value that its field's `Literal` does not name.

    Raises:
        ValueError: Names the field, what it takes and what was found.
    """
    for name, (choices, types) in _choices(type(settings)).items():
        value = getattr(settings, name)
        if not isinstance(value, types) and value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, found {value!r}")


def refuse_outside(settings: object, interval: str, *names: str) -> None:
    """Raises if a number in one of these fields is outside an interval, or NaN; other types are allowed.

    Args:
        settings: A dataclass.
        interval: The interval in mathematical notation, such as "[0, 1)".
        names: The fields.

    Raises:
        ValueError: Names the field, the interval and what was found.
    """
    low, high = map(float, interval[1:-1].split(", "))
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, int | float):
            is_above = value >= low if interval.startswith("[") else value > low
            is_below = value <= high if interval.endswith("]") else value < high
            if not (is_above and is_below):
                raise ValueError(f"{name} must be in {interval}, found {value}")


def refuse_no_pattern(settings: object, *names: str) -> None:
    """Raises if text in one of these fields is no regular expression; other types are allowed.

    Args:
        settings: A dataclass.
        names: The fields.

    Raises:
        ValueError: Names the field, what was found and what is wrong with it.
    """
    for name in names:
        pattern = getattr(settings, name)
        try:
            re.compile(pattern if isinstance(pattern, str) else "")
        except re.error as error:
            actual = f"{pattern!r} ({error})"
            raise ValueError(f"{name} must be a regular expression, found {actual}") from error


def suggest_word(word: str, words: Iterable[str]) -> str:
    """A question that suggests the known word closest to this one; empty if none is close.

    Dotted paths are compared by their last name; all paths that end in the closest name are suggested.
    """
    ending: dict[str, list[str]] = {}
    for path in words:
        ending.setdefault(path.rpartition(".")[2], []).append(path)
    matches = get_close_matches(word.rpartition(".")[2], ending, n=1, cutoff=0.5)
    return f" (did you mean {' or '.join(map(repr, ending[matches[0]]))}?)" if matches else ""


def list_first(words: Sequence[str]) -> str:
    """The words; of over a hundred, such as ImageNet's classes, the first twenty and how many follow."""
    return ", ".join(words) if len(words) <= 100 else f"{', '.join(words[:20])} and {len(words) - 20} others"


def explain_unknown(what: str, word: object, words: Collection[str]) -> str:
    """The error about an unknown word: the known word closest to it, and the known words."""
    return f"unknown {what} {word!r}{suggest_word(str(word), words)}; known: {list_first(tuple(words))}"


@cache
def _choices(kind: type) -> Mapping[str, tuple[tuple[Any, ...], tuple[type, ...]]]:
    """For each field with a `Literal`: its values, and the other types that the field allows."""
    choices = {}
    for name, hint in get_type_hints(kind).items():
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        literals = [each for each in kinds if get_origin(each) is Literal]
        if literals:
            values = tuple(value for each in literals for value in get_args(each))
            choices[name] = values, tuple(each for each in kinds if each not in literals)
    return choices

"""Plain values, as TOML and JSON hold them, into frozen dataclasses; an error names its place."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

from unweave.choices import nearest

Table = Mapping[str, Any]
T = TypeVar("T")


def configure(settings: T, overrides: object, path: str = "method") -> T:
    """A dataclass with some fields changed; nested tables change fields of fields.

    A given `steps` displaces a default `epochs`, and the other way round.

    Args:
        settings: The dataclass.
        overrides: What to change.
        path: What errors call it.

    Raises:
        ValueError: If a field is not known or a value is wrong; says where.
    """
    given = mapping(overrides, path)
    refuse_unknown_fields(type(settings), given, path)
    return validated(type(settings), merged(dataclasses.asdict(cast(Any, settings)), given), path)


def read(kind: type[T], table: object, path: str) -> T:
    """A dataclass from a value per field; `path` is what errors call it, "" for a whole recipe.

    Raises:
        ValueError: If a field is not known or missing, or a value is wrong; says where.
    """
    refuse_unknown_fields(kind, mapping(table, path), path)
    return validated(kind, table, path)


def validated(kind: type[T], value: object, path: str) -> T:
    """The value in the type of `kind`. Numbers are not read from strings, nor truths from numbers."""
    from pydantic import ValidationError

    try:
        return _reader(kind)(json.dumps(value))
    except ValidationError as error:
        raise ValueError(_explained(cast(Table, error.errors()[0]), path)) from error


def merged(default: Table, overrides: Table) -> dict[str, Any]:
    """The overrides over the defaults, field by field."""
    made = dict(default)
    for key, value in overrides.items():
        inner = default.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        made[key] = merged(cast(Table, inner), value) if both else value
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if overrides.get(key) is not None and other not in overrides and other in default:
            made[other] = None
    return made


def mapping(table: object, path: str) -> Table:
    """The table, if it is one."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{path} must be a table, found {table!r}")
    return table


def refuse_unknown_fields(kind: type, table: Table, path: str) -> None:
    """Raises at a key that is no field of the dataclass, here or further in."""
    refuse_unknown(table, [field.name for field in dataclasses.fields(kind)], path, paths(kind))
    inner = tables(kind)
    for key, value in table.items():
        if isinstance(value, Mapping):
            for each in inner[key]:
                refuse_unknown_fields(each, value, f"{path}.{key}".removeprefix("."))


def paths(kind: type) -> list[str]:
    """The dotted path of every field of a dataclass and of those in it, the outer ones first."""
    inner = [f"{key}.{path}" for key, each in tables(kind).items() for table in each for path in paths(table)]
    return sorted([*(field.name for field in dataclasses.fields(kind)), *inner], key=lambda p: p.count("."))


def tables(kind: type) -> dict[str, list[type]]:
    """By the name of a field the dataclasses that it may hold."""
    hints = get_type_hints(kind)
    found = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return {
        name: [cast(type, each) for each in (hint, *get_args(hint)) if dataclasses.is_dataclass(each)]
        for name, hint in found.items()
    }


def refuse_unknown(table: Table, known: Iterable[str], path: str, meant: Iterable[str] = ()) -> None:
    """Raises at a key that is not known; `meant` are the dotted paths that it may have stood for."""
    known = list(known)
    for key in table:
        if key not in known:
            guess = nearest(key, [*meant] or known)
            raise ValueError(
                f"unknown key {key!r} in {path or 'the recipe'}{guess}; known: {', '.join(known)}"
            )


@cache
def _reader(kind: type[T]) -> Callable[[str], T]:
    # JSON, because pydantic's strict mode takes lists for tuples and tables for dataclasses only from there
    from pydantic import TypeAdapter

    adapter = TypeAdapter(kind)
    return lambda text: adapter.validate_json(text, strict=True)


def _explained(error: Table, path: str) -> str:
    """One sentence for an error of pydantic's."""
    place, found = ".".join([path, *map(str, error["loc"])]).removeprefix("."), error["input"]
    match error["type"]:
        case "value_error":
            return f"{place}: {error['ctx']['error']}".removeprefix(": ")
        case "missing":
            return f"{place} is missing"
        case "literal_error":
            expected = error["ctx"]["expected"]
            choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
            return f"{place} must be {expected}, found {found!r}{nearest(str(found), choices)}"
        case "dataclass_type":
            return f"{place} must be a table, found {found!r}"
        case _:
            return f"{place}: {error['msg'][:1].lower()}{error['msg'][1:]}, found {found!r}"

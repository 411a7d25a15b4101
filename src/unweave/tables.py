"""Reads TOML, and converts plain values of TOML or JSON to frozen dataclasses; errors name the place."""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, reduce, singledispatch
from importlib.resources.abc import Traversable
from operator import or_
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from unweave.choices import suggest_word

Table = Mapping[str, Any]
NOTHING = "none"
"""What stands for None in TOML, which has no null; write a pattern for a weight of that name as "(none)"."""

T = TypeVar("T")


def read_toml(place: Path | Traversable) -> dict[str, Any]:
    """The content of a file in TOML.

    Raises:
        ValueError: If it is not TOML, or not UTF-8.
    """
    try:
        return tomllib.loads(place.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{place} is not TOML: {error}") from error


@singledispatch
def as_table(value: object) -> Any:  # noqa: ANN401  plain values of any type
    """A dataclass as plain values for `read`; "kind" names the class of a field that allows several."""
    if isinstance(value, Mapping):
        return {key: as_table(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [as_table(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    values = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    names = {name for name, kinds in nested_kinds(type(value)).items() if len(kinds) > 1}
    kinds = {name: kind_of(type(values[name])) for name in names if dataclasses.is_dataclass(values[name])}
    table = {name: as_table(each) for name, each in values.items()}
    return table | {name: {"kind": kind, **table[name]} for name, kind in kinds.items()}


def kind_of(kind: type) -> str:
    """The "kind" of a dataclass: its name in lower case."""
    return kind.__name__.lower()


def read(kind: type[T], table: object, path: str, *, given: Table = MappingProxyType({})) -> T:
    """Builds a dataclass from one value per field; errors name `path`, which is "" for a whole recipe.

    Args:
        kind: The dataclass.
        table: The values, as in TOML or JSON.
        path: The place of the table.
        given: Fields that are not in the table, with their values.

    Raises:
        ValueError: If a field is unknown or missing, or a value is wrong; the message says where.
    """
    return build(kind, require_mapping(table, path), path, given=given)


def build(kind: type[T], table: Table, path: str, *, given: Table = MappingProxyType({})) -> T:
    """Builds a dataclass from one value per field, nested dataclasses first; see `read`.

    Raises:
        ValueError: If a field is unknown or missing, or a value is wrong; the message says where.
    """
    hints = field_types(kind)
    fields = [each for each in dataclasses.fields(cast(Any, kind)) if each.name not in given]
    refuse_unknown(table, [field.name for field in fields], path, field_paths(kind))
    for field in fields:
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if is_required and field.name not in table:
            raise ValueError(f"{join_path(path, field.name)} is missing")
    values = {name: value_of(hints[name], value, join_path(path, name)) for name, value in table.items()}
    try:
        return kind(**values, **given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}".removeprefix(": ")) from error


def value_of(hint: Any, value: object, path: str) -> object:  # noqa: ANN401  any type can be a hint
    """Converts a value to the type of a field; a dataclass is a table, or its kind alone."""
    kinds = {kind_of(each): each for each in dataclasses_in(hint)}
    plain_types = [each for each in members(hint) if each not in kinds.values()]
    if value == NOTHING and type(None) in plain_types:
        return None
    if isinstance(value, str) and value in kinds and str not in plain_types:
        value = {"kind": value}
    if kinds and isinstance(value, Mapping):
        first_kind, *other_kinds = kinds.values()
        if not other_kinds and "kind" in field_paths(first_kind):  # a field of its own
            return build(first_kind, value, path)
        kind = kinds[choose_kind(kinds, value, path)]
        return build(kind, {key: each for key, each in value.items() if key != "kind"}, path)
    if kinds and (not plain_types or (plain_types == [type(None)] and value is not None)):
        names = f" or one of {', '.join(kinds)}" if len(kinds) > 1 else ""
        guess = suggest_word(str(value), kinds) if names else ""
        raise ValueError(f"{path} must be a table{names}, found {value!r}{guess}")
    try:
        return validate(reduce(or_, plain_types) if kinds else hint, value, path)
    except ValueError as error:
        if not kinds:
            raise
        raise ValueError(f"{error}; it may also be {' or '.join(kinds)}") from error


def choose_kind(kinds: Mapping[str, type], table: Table, path: str) -> str:
    """The kind of the dataclass that a table describes.

    Raises:
        ValueError: If the table names no kind, or an unknown one.
    """
    kind = table.get("kind", next(iter(kinds)) if len(kinds) == 1 else None)
    if kind not in kinds:
        guess = suggest_word(str(kind), kinds)
        raise ValueError(
            f"{join_path(path, 'kind')} must be one of {', '.join(kinds)}, found {kind!r}{guess}"
        )
    return kind


def join_path(path: str, name: str) -> str:
    """The path of a field."""
    return f"{path}.{name}".removeprefix(".")


def validate(kind: Any, value: object, path: str) -> Any:  # noqa: ANN401  any type can be a hint
    """Checks that a value has a type, strictly: a string is no number, and a number no truth value."""
    from pydantic import ValidationError

    try:
        return _reader(kind)(json.dumps(value))
    except ValidationError as error:
        errors = cast(list[Table], error.errors())
        is_union = len([each for each in members(kind) if each is not type(None)]) > 1
        is_flat = is_union and all(len(each["loc"]) == 1 for each in errors)
        raise ValueError(_explain_union(errors, path) if is_flat else _explain(errors[0], path)) from error


def merge_tables(default: Table, overrides: Table) -> dict[str, Any]:
    """Merges overrides into defaults, field by field; a table of another kind replaces the default."""
    table = dict(default)
    for key, value in overrides.items():
        inner = default.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            same_kind = value.get("kind", inner.get("kind")) == inner.get("kind")
            table[key] = merge_tables(inner, value) if same_kind else value
        elif not (isinstance(inner, Mapping) and value == inner.get("kind", {})):
            table[key] = value
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if overrides.get(key) is not None and other not in overrides and other in default:
            table[other] = None
    return table


def require_mapping(table: object, path: str) -> Table:
    """Returns a table; raises for anything else."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{path} must be a table, found {table!r}")
    return table


@cache
def field_paths(kind: type) -> tuple[str, ...]:
    """The dotted paths of all fields of a dataclass and its nested dataclasses, outer fields first."""
    inner = [
        f"{key}.{path}"
        for key, each in nested_kinds(kind).items()
        for table in each
        for path in field_paths(table)
    ]
    names = [field.name for field in dataclasses.fields(kind)]
    return tuple(sorted(dict.fromkeys([*names, *inner]), key=lambda path: path.count(".")))


@cache
def nested_kinds(kind: type) -> Mapping[str, list[type]]:
    """The dataclasses that each field may hold, by the name of the field."""
    hints = field_types(kind)
    return MappingProxyType(
        {field.name: dataclasses_in(hints[field.name]) for field in dataclasses.fields(kind)}
    )


@cache
def field_types(kind: type) -> Mapping[str, Any]:
    """The type of each field of a dataclass, by its name."""
    return MappingProxyType(get_type_hints(kind))


def dataclasses_in(hint: Any) -> list[type]:  # noqa: ANN401  any type can be a hint
    """The dataclasses that a type is, or is a union of."""
    return [cast(type, each) for each in members(hint) if dataclasses.is_dataclass(each)]


def members(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401  any type can be a hint
    """The types of a union; any other type alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def refuse_unknown(table: Table, allowed: Iterable[str], path: str, suggestions: Iterable[str] = ()) -> None:
    """Raises at an unknown key; `suggestions` are the dotted paths to suggest from."""
    allowed = list(allowed)
    for key in table:
        if key not in allowed:
            guess = suggest_word(key, [*suggestions] or allowed)
            raise ValueError(
                f"unknown key {key!r} in {path or 'the recipe'}{guess}; known: {', '.join(allowed) or 'none'}"
            )


@cache
def _reader(kind: Any) -> Callable[[str], Any]:  # noqa: ANN401  any type can be a hint
    # JSON, because pydantic's strict mode takes lists for tuples and tables for dataclasses only from there
    from pydantic import TypeAdapter

    adapter = TypeAdapter(kind)
    return lambda text: adapter.validate_json(text, strict=True)


def _explain_union(errors: Sequence[Table], path: str) -> str:
    """One sentence for a value that is of none of several types."""
    expected = [each.get("ctx", {}).get("expected") or each["msg"].split(" be ")[-1] for each in errors]
    return f"{path} must be {' or '.join(expected)}, found {errors[0]['input']!r}"


def _explain(error: Table, path: str) -> str:
    """One sentence for an error of pydantic's."""
    place, value = ".".join([path, *map(str, error["loc"])]).removeprefix("."), error["input"]
    match error["type"]:
        case "value_error":
            return f"{place}: {error['ctx']['error']}".removeprefix(": ")
        case "missing":
            return f"{place} is missing"
        case "literal_error":
            expected = error["ctx"]["expected"]
            choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
            return f"{place} must be {expected}, found {value!r}{suggest_word(str(value), choices)}"
        case "dataclass_type":
            return f"{place} must be a table, found {value!r}"
        case _:
            return f"{place}: {error['msg'][:1].lower()}{error['msg'][1:]}, found {value!r}"

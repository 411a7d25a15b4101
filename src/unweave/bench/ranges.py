"""Search spaces as Optuna's distributions, and settings by the dotted paths of their fields."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unweave.methods import Method
from unweave.space import Choice, Log, Range, Rest, Uniform, Whole
from unweave.tables import as_table

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Settings = Mapping[str, Any]
"""Values by dotted field path, such as `how.lr`."""


def distribution(choices: Log | Uniform | Whole | Choice) -> "BaseDistribution":
    """A range as a distribution of Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match choices:
        case Log(low, high):
            return FloatDistribution(low, high, log=True)
        case Uniform(low, high):
            return FloatDistribution(low, high)
        case Whole(low, high):
            return IntDistribution(low, high, log=True)
        case Choice(values):
            return CategoricalDistribution(values)


def default_settings(method: Method, space: Mapping[str, Range]) -> dict[str, Any]:
    """The method's own settings, as far as they are in their ranges."""
    table = as_table(method)
    return keep_in_range({path: value_at(table, path) for path in space}, space)


def keep_in_range(settings: Settings, space: Mapping[str, Range]) -> dict[str, Any]:
    """The settings that a search may draw, without those outside their ranges."""
    ranges = {path: each for path, each in space.items() if not isinstance(each, Rest)}
    return {path: settings[path] for path, each in ranges.items() if in_range(each, settings.get(path))}


def in_range(choices: Log | Uniform | Whole | Choice, value: object) -> bool:
    """Whether a value is in a range."""
    if isinstance(choices, Choice):
        return value in choices.values
    return isinstance(value, int | float) and choices.low <= value <= choices.high


def value_at(table: Mapping[str, Any], path: str) -> object:
    """The value at a dotted path: the kind of a table, None if there is nothing."""
    first, _, remainder = path.partition(".")
    value = table.get(first)
    if remainder:
        return value_at(value, remainder) if isinstance(value, Mapping) else None
    return value.get("kind") if isinstance(value, Mapping) else value


def nest_paths(settings: Settings) -> dict[str, Any]:
    """Converts dotted paths to nested tables."""
    root: dict[str, Any] = {}
    for path, value in settings.items():
        *tables, key = path.split(".")
        inner = root
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[key] = value
    return root


def flatten_tables(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Converts nested tables to dotted paths; the inverse of `nest_paths`."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= (
            flatten_tables(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def round_digits(value: object) -> object:
    """Rounds a number to three digits, as in recipes; other values stay unchanged."""
    return float(f"{value:.3g}") if isinstance(value, float) else value

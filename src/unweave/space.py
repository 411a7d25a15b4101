"""The search space of a method: ranges for its fields, independent of the search algorithm.

A method's `space(budget)` returns one range per dotted field path, such as `{"how.lr": Log(0.01, 0.3)}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["Choice", "Log", "Range", "Rest", "Tunable", "Uniform", "Whole", "up_to"]


@dataclass(frozen=True)
class Log:
    """A positive number, uniform in its logarithm.

    Args:
        low: The smallest value.
        high: The largest value.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"a logarithmic range needs 0 < low < high, found {self.low} and {self.high}")


@dataclass(frozen=True)
class Uniform:
    """A number, uniform between two ends.

    Args:
        low: The smallest value.
        high: The largest value.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range needs low < high, found {self.low} and {self.high}")


@dataclass(frozen=True)
class Whole:
    """A whole number of at least one, uniform in its logarithm: a count of steps, epochs or examples.

    Args:
        low: The smallest value.
        high: The largest value; may equal `low`, where a budget leaves no choice.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ValueError(
                f"a range of whole numbers needs 1 <= low <= high, found {self.low} and {self.high}"
            )


@dataclass(frozen=True)
class Choice:
    """One of a few values.

    Args:
        values: The values, at least one.
    """

    values: tuple[str | int | float | bool | None, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a choice needs at least one value, found none")


@dataclass(frozen=True)
class Rest:
    """The rest of a total after other settings, computed from the values drawn for them.

    Args:
        total: The total.
        prices: What one unit of another setting takes of the total, by its dotted path.
    """

    total: int
    prices: Mapping[str, int]

    def remaining(self, settings: Mapping[str, Any]) -> int:
        """The rest, at least zero."""
        return max(0, self.total - sum(price * settings[path] for path, price in self.prices.items()))


Range = Log | Uniform | Whole | Choice | Rest


RATES = Log(0.005, 1.0)
"""The learning rates of every method that uses SGD: one range for all, to favour none."""

SCHEDULES = Choice(("constant", "cosine"))
"""The schedules of every method that lets a search choose one."""


def up_to(longest: int, *, share: int = 10, least: int = 1) -> Whole:
    """A number of steps, from `longest / share` to `longest`.

    Args:
        longest: The number of steps that the budget allows.
        share: The longest run divided by the shortest.
        least: The fewest steps of any run, whatever the budget.
    """
    return Whole(max(least, longest // share), max(least, longest))


def prefix_paths(name: str, space: Mapping[str, Range]) -> dict[str, Range]:
    """The space of a nested field: its paths begin with the name of the field."""

    def with_prefix(entry: Range) -> Range:
        if not isinstance(entry, Rest):
            return entry
        return Rest(entry.total, {f"{name}.{path}": price for path, price in entry.prices.items()})

    return {f"{name}.{path}": with_prefix(each) for path, each in space.items()}


@runtime_checkable
class Tunable(Protocol):
    """A method with settings to search."""

    def space(self, budget: int) -> Mapping[str, Range]:
        """A range per dotted field path.

        Args:
            budget: The largest number of gradient evaluations that a run may spend.
        """
        ...

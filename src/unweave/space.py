"""What a method lets a search choose from: ranges for its fields, and nothing about who searches.

A method's `space(budget)` returns one range per dotted field path, such as `{"how.lr": Log(0.01, 0.3)}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


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
    """A number, uniform between its ends.

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
    """What other settings leave of a total: worked out from what was drawn for them.

    Args:
        total: The total.
        prices: By dotted path, what one unit of another setting takes of it.
    """

    total: int
    prices: Mapping[str, int]

    def remaining(self, drawn: Mapping[str, Any]) -> int:
        """What is left, if anything."""
        return max(0, self.total - sum(price * drawn[path] for path, price in self.prices.items()))


Range = Log | Uniform | Whole | Choice | Rest


RATES = Log(0.005, 1.0)
"""The learning rates of every method whose own optimizer is SGD: one range, which favours no method."""

SCHEDULES = Choice(("constant", "cosine"))
"""The schedules of every method that lets a search choose one."""


def up_to(longest: int, *, share: int = 10, least: int = 1) -> Whole:
    """The number of steps, from one of so many shares of the longest run to all of it.

    Args:
        longest: What the budget allows: all of it where a step takes one gradient evaluation.
        share: What the shortest run is a fraction of.
        least: As many steps as any run needs, whatever the budget.
    """
    return Whole(max(least, longest // share), max(least, longest))


def prefix_paths(name: str, space: Mapping[str, Range]) -> dict[str, Range]:
    """The space with its paths under a field of that name."""

    def with_prefix(each: Range) -> Range:
        if not isinstance(each, Rest):
            return each
        return Rest(each.total, {f"{name}.{path}": price for path, price in each.prices.items()})

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

"""Checks the frontier of a record against the stages of the same record, from which it is computed."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from unweave.bench.compare_figures import is_same
from unweave.bench.frontier import curve, frontier
from unweave.bench.setup import Tuning

Stage = Mapping[str, Any]
Figures = dict[str, Any]


def check_frontier(name: str, recorded: Mapping[str, Any], stages: Mapping[str, Stage]) -> Iterator[str]:
    """Yields what a recipe's frontier says and its stages do not, or the other way round."""
    by_budget = stages_by_budget(name, stages)
    if not by_budget:
        yield f"the frontier of {name} has no stage"
        return
    expected = frontier(by_budget)
    # earlier versions counted methods of a single budget, and compared fewer pairs
    expected |= {
        "methods": {each: curve(each, by_budget) for each in (*expected["methods"], *recorded["methods"])}
    }
    pairs = {pair_of(row) for row in recorded["paired"]}
    expected |= {"paired": [row for row in expected["paired"] if pair_of(row) in pairs]}
    figures, expected_figures = named_figures(recorded), named_figures(expected)
    for figure in dict.fromkeys((*figures, *expected_figures)):
        value, actual = figures.get(figure, "nothing"), expected_figures.get(figure, "nothing")
        if not is_same(value, actual):
            yield f"the frontier of {name} says {figure} {value}, but its stages say {actual}"


def stages_by_budget(name: str, stages: Mapping[str, Stage]) -> dict[float, Stage]:
    """The stages of a recipe, by budget: they are named NAME@BUDGET, or NAME if it has no budgets."""
    by_budget: dict[float, Stage] = {}
    for key, stage in stages.items():
        recipe, _, budget = key.rpartition("@")
        if key == name:
            by_budget[budget_of(stage["recipe"].get("tuning", {}))] = stage
        elif recipe == name:
            with suppress(ValueError):  # no stage of ours, if no number follows
                by_budget[float(budget)] = stage
    return by_budget


def budget_of(tuning: Mapping[str, Any]) -> float:
    """The largest budget of a recipe, from its table in a record; that of `Tuning` if it names none."""
    return Tuning(budget=tuning.get("budget"), budgets=tuple(tuning.get("budgets") or ())).largest_budget


def pair_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """The two methods of a paired difference."""
    return row["first"], row["second"]


def named_figures(content: Mapping[str, Any]) -> Figures:
    """All that a frontier says, each under a name to print."""
    figures: Figures = {key: content[key] for key in ("floor", "margin", "original")}
    figures["the budgets"] = ", ".join(f"{budget:g}" for budget in content["budgets"])
    for name, row in content["methods"].items():
        figures[f"{name}: cost of a PASS"] = row["cost_of_pass"]
        for point in row["points"]:
            entries = {f"gap {end}": value for end, value in (point["gap"] or {}).items()}
            entries |= {key: value for key, value in point.items() if key not in ("budget", "gap")}
            figures |= {f"{name} at {point['budget']:g}: {key}": value for key, value in entries.items()}
    for row in content["paired"]:
        ends = {key: row[key] for key in ("difference", "low", "high")}
        name = f"{row['first']} less {row['second']} at {row['budget']:g}"
        figures |= {f"{name}: {key}": value for key, value in ends.items()}
    return figures

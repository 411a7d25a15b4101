"""Prints the tables of docs/frontier.md from the records of `benchmarks/frontier.py`.

    python benchmarks/frontier_tables.py records/frontier-digits.json
    python benchmarks/frontier_tables.py records/frontier-digits.json --against records/OTHER.json

First what a PASS costs each method on every stage. Then, by stage, the gap and the verdict at each budget,
and what the lookahead adds. With another record of the same stage: how much the gaps of two searches differ.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from unweave.record.compact import read_record
from unweave.report.frontier import LETTERS, exceeds_budget, order_methods

Stage = Mapping[str, Any]


def cost_table(stages: Mapping[str, Stage]) -> Iterator[str]:
    """What a PASS costs each method, and the smallest gap at a tenth of a retraining, on every stage."""
    yield from header(["Method", *(f"`{name}`" for name in stages)])
    names = {name for stage in stages.values() for name in stage["methods"]} - {"original"}
    costs = {name: [cost_of(stage, name) for stage in stages.values()] for name in names}
    for name in sorted(names, key=lambda name: ([cost or 2 for cost in costs[name]], name)):
        yield row(f"`{name}`", [str(cost or "none") for cost in costs[name]])


def cost_of(stage: Stage, method: str) -> float | None:
    """The cost of a PASS; None without one."""
    return stage["methods"].get(method, {}).get("cost_of_pass")


def gap_table(stage: Stage) -> Iterator[str]:
    """The mean gap and the verdict of each method at each budget, the cheapest PASS first."""
    yield from header(["Method", *map(str, stage["budgets"]), "cost of a PASS"])
    for name in order_methods(stage):
        points = {point["budget"]: point for point in stage["methods"][name]["points"]}
        cells = [cell(points.get(budget)) for budget in stage["budgets"]]
        yield row(f"`{name}`", [*cells, str(cost_of(stage, name) or "none")])


def cell(point: Mapping[str, Any] | None) -> str:
    """A gap with the first letter of its verdict, and a star if the run took more than its budget."""
    if point is None:
        return ""
    over = "*" if exceeds_budget(point) else ""
    return f"{point['gap']['mean']:.2f} {LETTERS[point['verdict']]}{over}" if point["gap"] else "failed"


def pair_table(stage: Stage) -> Iterator[str]:
    """The paired differences of gaps with and without a lookahead, and how many exclude zero."""
    yield from header(["Pair", *map(str, stage["budgets"])])
    pairs: dict[str, dict[float, Mapping[str, float | None]]] = {}
    for each in stage["paired"]:
        pairs.setdefault(f"`{each['first']}` less `{each['second']}`", {})[each["budget"]] = each
    for name, by_budget in pairs.items():
        yield row(name, [difference(by_budget.get(budget)) for budget in stage["budgets"]])
    intervals = [each for each in stage["paired"] if each["low"] is not None]
    lower, higher = (sum(each[end] * sign > 0 for each in intervals) for end, sign in ENDS)
    yield f"\nOf {len(intervals)} intervals {lower} are below zero and {higher} above."


ENDS = (("high", -1), ("low", 1))
"""The end of an interval that excludes zero, and its sign: nearer, and farther."""


def difference(pair: Mapping[str, float | None] | None) -> str:
    """A difference with half of its interval, if it has one."""
    if pair is None:
        return ""
    low, high = pair["low"], pair["high"]
    reach = "" if low is None or high is None else f" ±{(high - low) / 2:.2f}"
    return f"{pair['difference']:+.2f}{reach}"


def luck_table(first: Stage, second: Stage) -> Iterator[str]:
    """The median over methods of how much the gaps of two searches differ, at the budgets of both."""
    budgets = [budget for budget in first["budgets"] if budget in second["budgets"]]
    yield from header(["", *map(str, budgets)])
    differences = {budget: list(gap_differences(first, second, budget)) for budget in budgets}
    yield row("median difference, points", [f"{median(differences[budget]):.2f}" for budget in budgets])
    yield row("methods", [str(len(differences[budget])) for budget in budgets])


def gap_differences(first: Stage, second: Stage, budget: float) -> Iterator[float]:
    """The difference of the mean gaps of every method that both records have."""
    for name in first["methods"].keys() & second["methods"].keys():
        gaps = [
            point["gap"]["mean"]
            for stage in (first, second)
            for point in stage["methods"][name]["points"]
            if point["budget"] == budget and point["gap"]
        ]
        if len(gaps) == 2:
            yield abs(gaps[0] - gaps[1])


def header(names: Sequence[str]) -> Iterator[str]:
    """The first two lines of a table; the first column is text."""
    yield row(names[0], names[1:])
    yield row(":--", ["--:"] * (len(names) - 1))


def row(first: str, cells: Sequence[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join([first, *cells]) + " |"


def print_stage(name: str, stage: Stage) -> None:
    """Prints the tables of one stage."""
    print(f"\n### {name}: floor {stage['floor']}, original {stage['original']}, {stage['trials']} trials\n")
    print("\n".join(gap_table(stage)), "\n")
    print("\n".join(pair_table(stage)))


def main() -> None:
    """Prints what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--against", type=Path, help="another record of the same stages")
    arguments = parser.parse_args()
    stages = read_record(arguments.record)["stages"]
    print("\n".join(cost_table(stages)))
    for name, stage in stages.items():
        print_stage(name, stage)
    if arguments.against:
        other_stages = read_record(arguments.against)["stages"]
        for name in stages.keys() & other_stages.keys():
            print(f"\n### {name}: two searches\n")
            print("\n".join(luck_table(stages[name], other_stages[name])))


if __name__ == "__main__":
    main()

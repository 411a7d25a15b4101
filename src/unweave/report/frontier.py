"""A record's frontier as tables: the gap of each method at each budget, and its cost of a PASS."""

import math
from collections.abc import Mapping
from typing import Any

from unweave.report import table_formats
from unweave.report.numbers import DASH, finite, interval, number

Frontier = Mapping[str, Any]

COST = "Cost of a PASS"
TO_BEAT = "short-retrain"
"""Training from scratch, which an unlearning method must beat to be worth its trouble."""
OVER = 1.1
"""A run keeps to its budget if it spends at most a tenth more: some methods measure something first."""
LETTERS = {"PASS": "P", "FAIL": "F", "INCONCLUSIVE": "?"}
LEGEND = (
    "Budgets are relative to the gradient evaluations of a retraining. Cells: mean gap over seeds, points; "
    "P: PASS, F: FAIL, ?: INCONCLUSIVE; +: it spent more than the budget, so that a PASS does not count. "
    "Cost of a PASS: the smallest budget at which, and at every larger one tested, a method passes; "
    "?: no budget was decided."
)
SPENT_LEGEND = "What a run took, relative to a retraining: gradient evaluations, and in brackets seconds."
PAIRED_LEGEND = (
    "Difference of the mean gaps, paired by seed, with its 95 % interval; below zero, the first is nearer. "
    "Fewer than three seeds have no interval."
)


def title(name: str) -> str:
    """The heading of a recipe's frontier."""
    return f"{name}: gap against cost"


def order_methods(frontier: Frontier) -> list[str]:
    """Sorts methods by their cost of a PASS, then by their gap at the largest budget."""

    def place(name: str) -> tuple[float, float]:
        method = frontier["methods"][name]
        cost = finite(method["cost_of_pass"])
        last_gap = finite(gap_of(method["points"][-1]))
        return math.inf if cost is None else cost, math.inf if last_gap is None else last_gap

    return sorted(frontier["methods"], key=place)


def gap_of(point: Mapping[str, Any]) -> float | None:
    """The mean gap of a point; None if the method failed."""
    return None if point["gap"] is None or point["failed"] is not None else finite(point["gap"]["mean"])


def verdict_of(point: Mapping[str, Any]) -> str:
    """The verdict of a point within its budget; a PASS that cost more than the budget is none."""
    return "OVER" if point["verdict"] == "PASS" and exceeds_budget(point) else point["verdict"]


def exceeds_budget(point: Mapping[str, Any]) -> bool:
    """Whether a run spent more than its budget."""
    return (finite(point["gradient_evaluations"]) or 0.0) > OVER * point["budget"]


def grid(frontier: Frontier) -> tuple[list[str], list[list[str]]]:
    """Header and lines: the gap and verdict of each method by budget, and its cost of a PASS."""
    header = ["Method", *(f"{budget:g}" for budget in frontier["budgets"]), COST]
    return header, [_line(name, frontier) for name in order_methods(frontier)]


def spent_grid(frontier: Frontier) -> tuple[list[str], list[list[str]]]:
    """Header and lines: the gradient evaluations and the seconds of each method, by budget."""
    header = ["Method", *(f"{budget:g}" for budget in frontier["budgets"])]
    return header, [_spent_line(name, frontier) for name in order_methods(frontier)]


def paired_grid(frontier: Frontier) -> tuple[list[str], list[list[str]]]:
    """Header and lines: the difference of the gaps of each pair of methods, by budget."""
    pairs = dict.fromkeys((row["first"], row["second"]) for row in frontier["paired"])
    cells = {(row["first"], row["second"], row["budget"]): row for row in frontier["paired"]}
    lines = [[cells.get((*pair, budget)) for budget in frontier["budgets"]] for pair in pairs]
    header = ["Pair", *(f"{budget:g}" for budget in frontier["budgets"])]
    return header, [
        [f"{first} less {second}", *map(_difference, line)]
        for (first, second), line in zip(pairs, lines, strict=True)
    ]


def conclusion(frontier: Frontier) -> str | None:
    """A sentence that compares the cheapest PASS with training from scratch for as long.

    Among equals it takes the nearest. If no method passes from a budget on, it takes the first PASS; if none
    passes at all, the nearest at the largest budget. None without a method that ran to its end.
    """
    points = _points_with_gap(frontier)
    ours = [each for each in points if each[2] != TO_BEAT]
    if not ours:
        return None
    costs = {name: method["cost_of_pass"] for name, method in frontier["methods"].items()}
    passing = [each for each in ours if each[3]]
    lasting = [each for each in passing if each[0] == costs[each[2]]]
    largest = [each for each in ours if each[0] == max(ours)[0]]
    budget, gap, name, passes = min(lasting or passing or largest)
    # without margins there is no verdict
    preface = (
        "" if passes or frontier["margin"] is None else f"{_explain_no_pass(frontier)} at these budgets. "
    )
    at = f"At {_percent(budget)} of a retraining's gradients"
    sentence = f"{preface}{at}, {name} is {number(gap)} points from a retrained model"
    sentence += ", and passes" if passes else ""
    later_budgets = [
        _percent(more)
        for more, _, who, still_passes in ours
        if who == name and more > budget and not still_passes
    ]
    sentence += f", though not at {' or '.join(later_budgets)}" if passes and later_budgets else ""
    scratch = [gap for at, gap, who, _ in points if (at, who) == (budget, TO_BEAT)]
    return sentence + (
        f"; training from scratch for as long is {number(scratch[0])} away." if scratch else "."
    )


def sentences(frontier: Frontier) -> list[str]:
    """Sentences with reference values of the gap."""
    levels = {
        "Two retrained models differ by a mean gap of": frontier["floor"],
        "A model each of whose parts lies at its margin has a mean gap of": frontier["margin"],
        "The untouched original has one of": frontier["original"],
    }
    return [f"{beginning} {number(gap)}." for beginning, gap in levels.items() if finite(gap) is not None]


def opening(frontier: Frontier) -> list[str]:
    """The sentences before the tables: the conclusion, and the reference values of the gap."""
    sentence = conclusion(frontier)
    return [*([sentence] if sentence else []), *sentences(frontier)]


def grids(frontier: Frontier) -> list[tuple[str, list[str], list[list[str]]]]:
    """The tables of a frontier, each with a caption."""
    tables = [
        (LEGEND, *grid(frontier)),
        (SPENT_LEGEND, *spent_grid(frontier)),
        (PAIRED_LEGEND, *paired_grid(frontier)),
    ]
    return [table for table in tables if table[-1]]


def text(name: str, frontier: Frontier, *, width: int) -> list[str]:
    """A recipe's frontier as lines of plain text."""
    lines = [title(name), *table_formats.wrap(opening(frontier), width)]
    for legend, header, cells in grids(frontier):
        table = table_formats.text_lines(header, cells, words=1, width=width)
        lines += ["", *table, *table_formats.wrap([legend], width)]
    return [*lines, ""]


def markdown(name: str, frontier: Frontier) -> list[str]:
    """A recipe's frontier as sections of Markdown."""
    return [
        table_formats.markdown(title(name), [*opening(frontier), legend], header, lines, words=1)
        for legend, header, lines in grids(frontier)
    ]


def latex(name: str, frontier: Frontier) -> list[str]:
    """A recipe's frontier as booktabs tabulars."""
    return [
        table_formats.tabular(title(name), header, lines, words=1) for _, header, lines in grids(frontier)
    ]


def _points_with_gap(frontier: Frontier) -> list[tuple[float, float, str, bool]]:
    """Budget, gap, method, and whether it passes, of every point with a gap."""
    points = [(name, point) for name, method in frontier["methods"].items() for point in method["points"]]
    return [
        (point["budget"], gap, name, verdict_of(point) == "PASS")
        for name, point in points
        if (gap := gap_of(point)) is not None
    ]


def _explain_no_pass(frontier: Frontier) -> str:
    """Why there is no PASS: methods fail, or nothing can be decided, as with few seeds."""
    verdicts = {each["verdict"] for row in frontier["methods"].values() for each in row["points"]}
    return "All verdicts are INCONCLUSIVE" if verdicts == {"INCONCLUSIVE"} else "No unlearning method passes"


def _percent(budget: float) -> str:
    return f"{100 * budget:.3g} %"


def _line(name: str, frontier: Frontier) -> list[str]:
    method = frontier["methods"][name]
    points = {point["budget"]: point for point in method["points"]}
    cost = finite(method["cost_of_pass"])
    cells = [_cell(points.get(budget)) for budget in frontier["budgets"]]
    undecided = all(point["verdict"] == "INCONCLUSIVE" for point in method["points"])
    return [name, *cells, ("?" if undecided else "none") if cost is None else f"{cost:g}"]


def _cell(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return DASH
    return f"{number(gap_of(point))} {LETTERS[point['verdict']]}{'+' if exceeds_budget(point) else ''}"


def _spent_line(name: str, frontier: Frontier) -> list[str]:
    points = {point["budget"]: point for point in frontier["methods"][name]["points"]}
    return [name, *(_spent(points.get(budget)) for budget in frontier["budgets"])]


def _spent(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return DASH
    return f"{number(point['gradient_evaluations'])} ({number(point['seconds'])})"


def _difference(row: Mapping[str, Any] | None) -> str:
    return DASH if row is None else interval(row["difference"], row["low"], row["high"])

"""Findings of a check, of any kind of model: the file, the advice, the notes and the table of costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unweave.cli.inputs import out
from unweave.cli.terminal import show
from unweave.record.record import to_json_values
from unweave.report.numbers import number
from unweave.report.rows import PEAK_MEMORY

FILE = "check.json"
MAX_NAMES = 5
"""The largest number of methods that a sentence names."""
COLUMNS: Mapping[str, tuple[str, int]] = {
    "Seconds": ("seconds", 1),
    "Range": ("seconds_range", 1),
    "Of a retrain": ("cost", 2),
    "Gradients": ("gradients", 0),
    "Peak MiB": ("peak_mib", 0),
}
"""The columns of a table of costs: the key of each, and its decimals."""
ASSUMED = (
    "Seconds and range: the median, the least and the most of three measurements of a few steps; of one, "
    "without a range, where two steps take a second. On a CPU they are CPU time, of all threads together. "
    "Methods are assumed to cost the same at every step.",
    "A recovery that ends once the model is restored is assumed to take its maximum.",
    PEAK_MEMORY,
)
"""The note on how costs are estimated."""

Costs = Mapping[str, Mapping[str, Any]]
"""The estimates of methods, and of a retrain, by name."""


def write_findings(findings: Mapping[str, Any], facts: out.Facts, place: Path | None) -> None:
    """Writes the findings into a folder, if one is given; `facts` tell this check from others."""
    out.write_json(place, facts, FILE, to_json_values(findings))


def slower_methods(costs: Costs) -> list[str]:
    """The methods that are shown to take longer than a retrain."""
    return [name for name, each in costs.items() if each["costs_more"]]


def retraining_advice(costs: Costs) -> list[str]:
    """Advice if methods take longer than a retrain, or may do so."""
    slow_methods = slower_methods(costs)
    unclear_methods = [name for name, each in costs.items() if each["costs_more"] is None]
    lines: list[str] = []
    if slow_methods:
        which = with_ratios(slow_methods, costs)
        lines.append(f"Retraining costs less than {which}: use --method retrain, which is exact.")
    if unclear_methods:
        which = with_ratios(unclear_methods, costs)
        lines.append(
            f"Retraining may cost less than {which}: the ranges of the measured seconds overlap. Check again "
            "when the machine is less busy."
        )
    return [*lines, ""] if lines else []


def with_ratios(names: Sequence[str], costs: Costs) -> str:
    """The names of methods, with their costs relative to a retrain."""
    phrases = [
        f"{name} ({number(costs[name]['cost'], 2)}{'' if i else ' times a retrain'})"
        for i, name in enumerate(names)
    ]
    if len(phrases) > MAX_NAMES:
        phrases = [*phrases[:MAX_NAMES], f"{len(phrases) - MAX_NAMES} more methods"]
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def find_refusals(costs: Costs) -> dict[str, str]:
    """The methods that can't run, with the reasons."""
    return {name: each["refused"] for name, each in costs.items() if each["refused"]}


def usable_line(model: str, costs: Costs) -> str:
    """A sentence that the model can be used, and with which methods it can't."""
    refusals = find_refusals(costs)
    exceptions = f", but not with {', '.join(refusals)}" if refusals else ""
    return f"{model} can be used{exceptions}."


def print_notes(notes: Sequence[str]) -> None:
    """Prints the problems that were found."""
    show.print_sentences(*([f"- {note}" for note in notes] or ["No problem was found."]), "")


def print_costs(costs: Costs, *sentences: str) -> None:
    """Prints the table of costs, relative to a retrain if one is possible, and why methods can't run.

    Args:
        costs: The costs.
        sentences: What was not measured.
    """
    columns = {title: each for title, each in COLUMNS.items() if each[0] != "cost" or "retrain" in costs}
    rows = [cost_row(name, each, list(columns.values())) for name, each in costs.items()]
    show.print_table(("Method", *columns, "Runs"), rows)
    show.print_sentences("", *ASSUMED, *sentences)
    show.print_sentences(*(f"{name}: {reason}" for name, reason in find_refusals(costs).items()))


def cost_row(name: str, each: Mapping[str, Any], columns: list[tuple[str, int]]) -> list[str]:
    """One line of the table of costs."""
    cells = [cost_cell(each[key], decimals) for key, decimals in columns]
    return [name, *cells, "no" if each["refused"] else "yes"]


def cost_cell(value: float | tuple[float, float] | None, decimals: int) -> str:
    """A number, or a range of two."""
    numbers = value if isinstance(value, tuple) else (value,)
    return " to ".join(number(each, decimals) for each in numbers)

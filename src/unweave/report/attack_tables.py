"""The attacks of an audit as a table and sentences, for every form of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from unweave.report.numbers import DASH, interval, number

DIGITS = 3
HEADER = (
    *("Attack", "Figure", "Model", "Original", "Retrained"),
    *("Null band", "Margin", "Shows from", "Finding"),
)
BRIEF = (2, 4, 6, 8)
"""The columns that fit a terminal."""
WORDS = 2
"""The number of columns of words before the numbers."""


def grid(attacks: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The header and a line per figure."""
    return [*HEADER], [line(row) for row in attacks["results"]]


def brief_grid(attacks: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The same for a terminal: without original, null band and the smallest difference that shows."""
    header, lines = grid(attacks)
    title = f"{header[0]}: {header[1].lower()}"
    return [title, *(header[i] for i in BRIEF)], [
        [f"{each[0]}: {each[1]}", *(each[i] for i in BRIEF)] for each in lines
    ]


def line(row: Mapping[str, Any]) -> list[str]:
    """The cells of one figure."""
    ends = row["null_band"]
    band = DASH if ends is None else f"{number(ends[0], DIGITS)} to {number(ends[1], DIGITS)}"
    limits = [number(row[key], DIGITS) for key in ("margin", "shows_from")]
    without = "none" if row["margin"] is not None else DASH
    return [
        row["attack"],
        row["figure"],
        interval(row["value"], row["low"], row["high"], DIGITS),
        number(row["original"], DIGITS),
        number(row["retrained"], DIGITS),
        band,
        *limits,
        row["finding"] or without,
    ]


def method_grid(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The header and a line per figure of attacks on every method of a stage, as means over seeds.

    In brackets is the number of seeds on which the attack tells the method from retrained models.
    """
    methods = list(rows[0]["methods"]) if rows else []
    lines = []
    for row in rows:
        low, high = row["null_band"]
        means = [number(fmean(row["methods"][name]), DIGITS) for name in methods]
        counts = [sum(each is not None for each in row["findings"][name]) for name in methods]
        cells = [f"{mean} ({n})" if n else mean for mean, n in zip(means, counts, strict=True)]
        band = f"{number(low, DIGITS)} to {number(high, DIGITS)}"
        reference_cells = [number(fmean(row["retrained"]), DIGITS), band, number(row["margin"], DIGITS)]
        lines.append([row["attack"], row["figure"], *reference_cells, *cells])
    return ["Attack", "Figure", "Retrained", "Null band", "Margin", *methods], lines


METHODS_SENTENCE = (
    "Attacks on the answers of each model: means over seeds; in brackets the number of seeds on which the "
    "attack tells a method from retrained models. No verdict uses them."
)


@dataclass(frozen=True)
class Attacks:
    """The attacks of a stage for the template of the page.

    Args:
        header: Of their table.
        lines: A line per figure.
        sentences: On claims, power, controls, and attacks that did not run.
        limits: What each attack cannot show.
        pictures: What an attack shows of some records.
    """

    header: list[str]
    lines: list[list[str]]
    sentences: list[str]
    limits: dict[str, str]
    pictures: list[Mapping[str, Any]]


def attacks_of(stage: Mapping[str, Any]) -> Attacks | None:
    """The attacks on every method of a stage, or else those of an audit; None without."""
    if stage.get("attacked_methods"):
        return Attacks(*method_grid(stage["attacked_methods"]), [METHODS_SENTENCE], {}, [])
    if "attacks" not in stage:
        return None
    attacks = stage["attacks"]
    limits = {row["attack"]: row["cannot"] for row in attacks["results"]}
    return Attacks(*grid(attacks), sentences(attacks), limits, attacks.get("pictures", []))


def sentences(attacks: Mapping[str, Any]) -> list[str]:
    """What can be claimed, the controls, what attacks say about themselves, and what is open."""
    notes = attacks.get("notes", {}).values()
    open_sentences = [f"Inconclusive: {name}: it {why}." for name, why in attacks.get("unjudged", {}).items()]
    cost_sentences = [attacks["spent"]] if attacks.get("spent") else []
    about = [attacks["claim"], attacks["power"], *control_sentences(attacks), *notes, *cost_sentences]
    return [*about, *open_sentences, *not_run_sentences(attacks)]


def control_sentences(attacks: Mapping[str, Any]) -> list[str]:
    """A sentence on the controls."""
    if attacks["valid"] is None:
        return ["Controls were not run: they need the models of a verdict."]
    names = [each["name"] for each in attacks["controls"] if not each["held"]]
    if names:
        return [f"The audit is INVALID: it judges {' and '.join(names)} wrongly."]
    return [f"The controls hold: {', '.join(map(control_clause, attacks['controls']))}."]


def control_clause(control: Mapping[str, Any]) -> str:
    """What a control that holds did; a few of many genuine retrains may fail."""
    if control["expected"] == "passes" and control["faults"]:
        return f"{control['name']} fail, no more than may"
    return f"{control['name']} {control['expected']}"


def not_run_sentences(attacks: Mapping[str, Any]) -> list[str]:
    """A sentence per reason why attacks were not run."""
    reasons: dict[str, list[str]] = {}
    for name, why in attacks["not_run"].items():
        reasons.setdefault(why, []).append(name)
    return [f"Not run: {', '.join(names)}: {why}." for why, names in reasons.items()]

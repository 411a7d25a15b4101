"""The tables of `erase.py`'s record: means over the classes that were forgotten in turn.

    python benchmarks/erase_tables.py records/erase-digits.json
    python benchmarks/erase_tables.py erase-fashion-mnist.json --retrained erase-fashion-mnist-retrained.json
    python benchmarks/erase_tables.py records/erase-digits-without-lookahead.json --compare lur-lagged joint

Behind each mean stands half of its 95 % t interval over classes, each of them a mean over seeds: how much the
classes differ. They share their originals. The row "two retrained" is what two models of different seeds
differ by. Costs are medians. A method that failed on a class is last, and its means are over the others: it
says over how many. A figure that no model has makes no column.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aims import count_met, write_count
from erase_aims import AIMS, shortfalls
from erase_retrained import add_models

from unweave.audits.score import interval
from unweave.record import record
from unweave.record.compact import read_record
from unweave.report.numbers import digits, heading, number

QUALITY = ("ua", "class_tv", "kid_forget", "effective", "ra", "kid", "precision", "recall", "drift_feature")
ATTACKS = ("guidance", "unasked", "line", "best_of_10", "vector", "relearn_10", "relearn_100")
DIFFERENCES = ("ua", "ra", "kid", "effective", "guidance", "best_of_10", "vector", "relearn_10")
COSTS = ("seconds", "cost", "gradient_evaluations", "peak_mib")
TITLES = {"cost": "of a retrain", "gradient_evaluations": "gradients", "peak_mib": "peak MiB"}

Stages = Sequence[Mapping[str, Any]]


def load_stages(place: Path, retrained: Path | None = None) -> Stages:
    """The stages of a record, with the further retrained models of another one."""
    stages = record.load(place)["stages"]
    further = read_record(retrained)["stages"] if retrained else {}
    return [add_models(stage, further[name]) if further else stage for name, stage in stages.items()]


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Markdown."""
    lines = [
        ("", *columns),
        (":--", *["--:"] * len(columns)),
        *((name, *cells) for name, cells in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(values: Sequence[float | None], metric: str) -> str:
    """A mean with half of its interval, if it has one; a dash where nothing was measured."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return number(None)
    mean, (low, high) = number(float(np.mean(numbers)), digits(metric)), interval(numbers)
    return mean if math.isnan(low) else f"{mean} ± {number((high - low) / 2, digits(metric))}"


def figures(stages: Stages, metrics: Sequence[str]) -> str:
    """Scores of the retrained models, the original and every method, nearest first."""
    scores = {"retrained": [stage["reference"]["scores"] for stage in stages]}
    for name in rank_methods(stages):
        scores[title_of(stages, name)] = [stage["methods"][name]["scores"] for stage in stages]
    available = set().union(*(each for per_stage in scores.values() for each in per_stage))
    metrics = [each for each in metrics if each in available]
    rows = {
        name: [cell([value(each, metric) for each in per_stage], metric) for metric in metrics]
        for name, per_stage in scores.items()
    }
    return table([heading(each) for each in metrics], rows)


def title_of(stages: Stages, name: str) -> str:
    """A method, and on how many classes it ended well where that is not on all."""
    count = len(gaps(stages, name))
    return name if count == len(stages) else f"{name} ({count} of {len(stages)} classes)"


def value(scores: Mapping[str, Any], metric: str) -> float | None:
    """The mean over seeds of one metric."""
    return scores[metric]["value"] if metric in scores else None


def rank_methods(stages: Stages) -> list[str]:
    """The original, then the methods by their mean gap; those that failed on most classes last."""

    def rank(name: str) -> tuple[int, float]:
        own_gaps = gaps(stages, name)
        return len(stages) - len(own_gaps), float(np.mean(own_gaps)) if own_gaps else 0.0

    return ["original", *sorted((name for name in stages[0]["methods"] if name != "original"), key=rank)]


def gaps(stages: Stages, name: str) -> list[float]:
    """The mean gap of a method on each stage."""
    return [stage["methods"][name]["gap"]["mean"] for stage in stages if stage["methods"][name]["gap"]]


def costs(stages: Stages) -> str:
    """The mean gap and what it cost."""
    floors = [stage["floor"] for stage in stages if stage["floor"] is not None]
    rows = {"two retrained": [cell(floors, "ua"), *[number(None)] * len(COSTS)]} if floors else {}
    for name in rank_methods(stages):
        medians = [float(np.median([stage["methods"][name][each] for stage in stages])) for each in COSTS]
        rows[title_of(stages, name)] = [
            cell(gaps(stages, name), "ua"),
            *(number(each, 2 if each < 10 else 0) for each in medians),
        ]
    return table(["mean gap, points", *(TITLES.get(each, each) for each in COSTS)], rows)


def differences(stages: Stages) -> str:
    """How far each method is from the retrained models, paired over classes, with a 95 % interval."""
    references = [stage["reference"]["scores"] for stage in stages]
    rows = {
        name: subtract_scores([stage["methods"][name]["scores"] for stage in stages], references)
        for name in rank_methods(stages)[1:]
    }
    return table([heading(each) for each in DIFFERENCES], rows)


def compare_rows(stages: Stages, first: str, others: Sequence[str]) -> str:
    """One method less others, paired over the classes on which both ended well, with 95 % intervals."""
    rows: dict[str, list[str]] = {}
    for name in others:
        pairs = [(stage["methods"][first], stage["methods"][name]) for stage in stages]
        pairs = [(one, other) for one, other in pairs if one["gap"] and other["gap"]]
        differences = [one["gap"]["mean"] - other["gap"]["mean"] for one, other in pairs]
        ours, theirs = ([pair[i]["scores"] for pair in pairs] for i in (0, 1))
        where = "" if len(pairs) == len(stages) else f" ({len(pairs)} of {len(stages)} classes)"
        rows[f"{first} less {name}{where}"] = [
            write_difference(differences, "ua"),
            *subtract_scores(ours, theirs),
        ]
    return table(["mean gap, points", *(heading(each) for each in DIFFERENCES)], rows)


def subtract_scores(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The mean differences of `DIFFERENCES`; a dash for what some class has not."""
    pairs = list(zip(ours, theirs, strict=True))
    return [
        write_difference([one[each]["value"] - other[each]["value"] for one, other in pairs], each)
        if all(each in one and each in other for one, other in pairs)
        else number(None)
        for each in DIFFERENCES
    ]


def write_difference(values: Sequence[float], metric: str) -> str:
    """A mean with its interval, in the digits of a metric."""
    ends = " to ".join(number(end, digits(metric)) for end in interval(values))
    return f"{number(float(np.mean(values)), digits(metric))} ({ends})"


def aims(stages: Stages) -> str:
    """The classes on which each method meets an aim, and the mean shortfall."""
    names = [name for name in rank_methods(stages) if name != "original"]
    counts = {name: count_met([shortfalls(stage, name) for stage in stages], AIMS) for name in names}
    rows = {name: [write_count(by_aim.get(aim)) for aim in AIMS] for name, by_aim in counts.items()}
    return table([*AIMS.values()], rows)


def conflict(stages: Stages) -> str:
    """The cosine of the headline's gradients with its split-half reliability, over classes, in thirds."""
    curves = [stage["methods"][stage["headline"]]["trace"].get("cosine", []) for stage in stages]
    rows = np.array([row for curve in curves for row in curve if row[2] is not None], dtype=float)
    if not len(rows):
        return ""
    thirds = np.array_split(rows[rows[:, 0].argsort()], 3)
    lines = {
        f"steps {third[0, 0]:.0f} to {third[-1, 0]:.0f}": [number(x, 3) for x in third[:, 1:].mean(0)]
        for third in thirds
    }
    return table(["cosine", "split-half"], lines)


def tables(stages: Stages) -> list[str]:
    """The tables of the study: aims, quality, attacks, differences and costs."""
    both = [figures(stages, metrics) for metrics in (QUALITY, ATTACKS)]
    return [aims(stages), *both, differences(stages), costs(stages)]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--retrained", type=Path, help="the record of `erase_retrained.py`")
    parser.add_argument("--compare", nargs="+", metavar="METHOD", help="print the first less each other only")
    arguments = parser.parse_args()
    if arguments.compare and len(arguments.compare) < 2:
        parser.error("--compare takes two methods or more")
    stages = load_stages(arguments.record, arguments.retrained)
    if arguments.compare:
        print(compare_rows(stages, arguments.compare[0], arguments.compare[1:]))
    else:
        print(*tables(stages), conflict(stages), sep="\n\n")


if __name__ == "__main__":
    main()

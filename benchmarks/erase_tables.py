"""The tables of `erase.py`'s record: means over the classes that were forgotten in turn.

    python benchmarks/erase_tables.py records/erase-digits.json

Behind each mean stands half of its 95 % t interval over classes, each of them a mean over seeds: what another
class of the same data would give. The row "two retrained" is what two models of different seeds differ by.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unweave.audit.score import t_interval
from unweave.report.numbers import digits, heading, number
from unweave.run import record

QUALITY = ("ua", "class_tv", "kid_forget", "effective", "ra", "kid", "precision", "recall", "drift_feature")
ATTACKS = ("guidance", "line", "best_of_10", "vector", "relearn_10", "relearn_100")
COSTS = ("seconds", "cost", "gradient_evaluations", "peak_mib")
TITLES = {"cost": "of a retrain", "gradient_evaluations": "gradients", "peak_mib": "peak MiB"}

Stages = Sequence[Mapping[str, Any]]


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Markdown."""
    lines = [
        ("", *columns),
        (":--", *["--:"] * len(columns)),
        *((name, *cells) for name, cells in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(values: Sequence[float | None], metric: str) -> str:
    """A mean with half of its interval; a dash where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return number(None)
    low, high = t_interval(known)
    return f"{number(float(np.mean(known)), digits(metric))} ± {number((high - low) / 2, digits(metric))}"


def figures(stages: Stages, metrics: Sequence[str]) -> str:
    """Scores of the retrained models, the original and every method, nearest first."""
    rows = {
        "retrained": [
            cell([value(stage["reference"]["scores"], each) for stage in stages], each) for each in metrics
        ]
    }
    rows = {
        **rows,
        **{
            name: [
                cell([value(stage["methods"][name]["scores"], each) for stage in stages], each)
                for each in metrics
            ]
            for name in ranked(stages)
        },
    }
    return table([heading(each) for each in metrics], rows)


def value(scores: Mapping[str, Any], metric: str) -> float | None:
    """The mean over seeds of one metric."""
    return scores[metric]["value"] if metric in scores else None


def ranked(stages: Stages) -> list[str]:
    """The original, then the methods by their mean gap."""
    names = [name for name in stages[0]["methods"] if name != "original"]
    return ["original", *sorted(names, key=lambda name: np.mean(gaps(stages, name)))]


def gaps(stages: Stages, name: str) -> list[float]:
    """The mean gap of a method on each stage."""
    return [stage["methods"][name]["gap"]["mean"] for stage in stages if stage["methods"][name]["gap"]]


def costs(stages: Stages) -> str:
    """The mean gap and what it cost."""
    rows = {"two retrained": [cell([stage["floor"] for stage in stages], "ua"), *[number(None)] * len(COSTS)]}
    for name in ranked(stages):
        spent = [float(np.mean([stage["methods"][name][each] for stage in stages])) for each in COSTS]
        rows[name] = [
            cell(gaps(stages, name), "ua"),
            *(number(each, 2 if each < 10 else 0) for each in spent),
        ]
    return table(["mean gap, points", *(TITLES.get(each, each) for each in COSTS)], rows)


def conflict(stages: Stages, name: str = "lur") -> str:
    """The cosine of the two gradients with its split-half reliability, over classes, in thirds of the run."""
    traces = [curve for stage in stages for curve in stage["methods"][name]["trace"].values()]
    rows = np.array([row for curve in traces for row in curve if row[2] is not None], dtype=float)
    if not len(rows):
        return ""
    thirds = np.array_split(rows[rows[:, 0].argsort()], 3)
    made = {
        f"steps {third[0, 0]:.0f} to {third[-1, 0]:.0f}": [number(x, 3) for x in third[:, 1:].mean(0)]
        for third in thirds
    }
    return table(["cosine", "split-half"], made)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path)
    stages = list(record.load(parser.parse_args().record)["stages"].values())
    print(figures(stages, QUALITY), figures(stages, ATTACKS), costs(stages), conflict(stages), sep="\n\n")


if __name__ == "__main__":
    main()

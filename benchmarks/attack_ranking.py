"""Do attacks on single records rank methods as the mean gap does, and which PASS do they take away?

    python benchmarks/attack_ranking.py --record records/attack-ranking.json

Reads the records of `benchmarks/shadows.py`, and verdicts and gaps of the same settings from those of
`benchmarks/frontier.py` (at a budget) or `benchmarks/attacks_by_method.py`. It trains nothing. The order
of an attack is that of the distances of its figure from the middle of the null band of retrained models;
Kendall's tau compares it with the order by the mean gap, and p is that of two independent orders. U-LiRA
takes a PASS away if the interval of its accuracy lies above the null band.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_json
from scipy.stats import kendalltau

from unweave.record.compact import read_record
from unweave.record.record import environment

STAGES = (
    "digits-trace",
    "digits-trace@0.3",
    "digits-trace@0.45",
    "digits-trace@0.6",
    "fashion-mnist-random10",
)
"""Names of recipes; those with a budget have settings of the frontier."""

RANKED = ("u-lira: accuracy", "u-lira: worst decile", "rmia: auc")
DECIDING = "u-lira: accuracy"

Row = dict[str, Any]


def read_verdicts(records: Path, stage: str) -> dict[str, Row]:
    """The verdict and the mean gap of each method with the settings of a stage."""
    name, _, budget = stage.partition("@")
    if not budget:
        return read_record(records / "attacks-by-method.json")["recipes"][name]["methods"]
    methods = read_record(records / "frontier-digits.json")["stages"][name]["methods"]
    return {
        method: {"verdict": point["verdict"], "gap": point["gap"]["mean"]}
        for method, each in methods.items()
        for point in each["points"]
        if point["budget"] == float(budget) and point["gap"]
    }


def join(shadows: Mapping[str, Any], points: Mapping[str, Any]) -> dict[str, Row]:
    """The verdict, the gap and the figures of each method that was attacked.

    Args:
        shadows: The rows of a record of attacks, by method.
        points: The verdict and the gap of these settings, by method.
    """
    return {
        name: {
            "verdict": points[name]["verdict"],
            "gap": points[name]["gap"],
            "attacks": {each: figure_of(row["attacks"][each]) for each in RANKED},
        }
        for name, row in shadows.items()
        if name in points and name not in ("retrain", "original") and row["failed"] is None
    }


def figure_of(result: Mapping[str, Any]) -> Row:
    """What is needed of an attack's result."""
    return {key: result[key] for key in ("value", "low", "high", "retrained", "null_band")}


def rank(methods: Mapping[str, Row]) -> dict[str, Row]:
    """Kendall's tau of the order by gap with that by each attack, and between attacks."""
    orders = {"gap": [each["gap"] for each in methods.values()]}
    for figure in RANKED:
        orders[figure] = [distance(each["attacks"][figure]) for each in methods.values()]
    pairs = [("gap", figure) for figure in RANKED] + [(DECIDING, "rmia: auc")]
    return {f"{one}, {other}": compare(orders[one], orders[other]) for one, other in pairs}


def distance(figure: Mapping[str, Any]) -> float:
    """How far a figure is from the middle of the null band; a single value of retrained models varies."""
    return abs(figure["value"] - sum(figure["null_band"]) / 2)


def compare(one: Sequence[float], other: Sequence[float]) -> Row:
    """The rank correlation of two orders and its p."""
    tau, p = np.asarray(kendalltau(one, other), dtype=float).tolist()
    return {"tau": round(tau, 3), "p": round(p, 3), "methods": len(one)}


def overturned_passes(methods: Mapping[str, Row]) -> list[str]:
    """The methods with a PASS that U-LiRA tells from retrained models."""
    return [
        name
        for name, each in methods.items()
        if each["verdict"] == "PASS"
        and each["attacks"][DECIDING]["low"] > each["attacks"][DECIDING]["null_band"][1]
    ]


def summarize(records: Path) -> Row:
    """The comparison on every stage."""
    stages = {}
    for stage in STAGES:
        shadows = read_record(records / f"shadows-{stage.replace('@', '-at-')}.json")["rows"]
        methods = join(shadows, read_verdicts(records, stage))
        stages[stage] = {
            "methods": methods,
            "kendall": rank(methods),
            "passes": sum(each["verdict"] == "PASS" for each in methods.values()),
            "taken away": overturned_passes(methods),
        }
    return {"stages": stages, "environment": environment()}


def main() -> None:
    """Compares, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=Path, default=Path(__file__).parents[1] / "records")
    parser.add_argument("--record", type=Path, help="the file to keep everything in as JSON")
    arguments = parser.parse_args()
    results = summarize(arguments.records)
    for stage, each in results["stages"].items():
        print(f"{stage}: {len(each['taken away'])} of {each['passes']} PASSes taken away")
        for pair, row in each["kendall"].items():
            print(f"  {pair:<40} tau {row['tau']:+.2f}  p {row['p']:.2f}  {row['methods']} methods")
    write_json(arguments.record, results)


if __name__ == "__main__":
    main()

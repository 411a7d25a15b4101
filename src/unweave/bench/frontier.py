"""The frontier: the gap of methods at each of several budgets, and the smallest budget at which they pass.

It is computed from the stages of a record that differ only in their budget.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from unweave.audits.margins import WIDENING
from unweave.audits.score import interval
from unweave.bench.study import REFERENCES
from unweave.families import family_of_stage
from unweave.report.frontier import verdict_of
from unweave.report.numbers import finite

KINDS = ("{}", "{}:recover", "shrink-perturb:{}:recover")
"""The forms of a method: alone, with a recovery, and with a start and a recovery."""

LOOKAHEADS = {"lur": "joint", "lur-exact": "joint", "lur-lagged": "joint", "lur-match": "joint-match"}
"""The methods with a lookahead, each with the one of the same objective without it."""

PAIRS = tuple(
    (kind.format(ahead), kind.format(without)) for kind in KINDS for ahead, without in LOOKAHEADS.items()
)
"""The methods compared seed by seed at each budget: with and without a lookahead, tuned alike."""

Content = Mapping[str, Any]


def frontier(stages: Mapping[float, Content]) -> dict[str, Any]:
    """The frontier as a part of a record: each method at each budget, and its cost of a PASS.

    A method that ran at one of several budgets has no part in it.

    Args:
        stages: The stage of a record, by budget.
    """
    stages = dict(sorted(stages.items()))
    first_stage = next(iter(stages.values()))
    counts = Counter(name for stage in stages.values() for name in stage["methods"])
    names = [name for name in counts if name not in REFERENCES and (counts[name] > 1 or len(stages) == 1)]
    pairs = [pair for pair in PAIRS if set(pair) <= set(names)]
    original = first_stage["methods"].get("original", {}).get("gap")
    return {
        "budgets": list(stages),
        "floor": first_stage.get("floor"),
        "margin": margin_of_gap(first_stage),
        "original": None if original is None else original["mean"],
        "methods": {name: curve(name, stages) for name in names},
        "paired": [row for pair in pairs for row in differences(*pair, stages)],
    }


def curve(name: str, stages: Mapping[float, Content]) -> dict[str, Any]:
    """One method at each of its budgets."""
    method_stages = {budget: stage for budget, stage in stages.items() if name in stage["methods"]}
    points = [point(stage["methods"][name], stage, budget) for budget, stage in method_stages.items()]
    verdicts = {each["budget"]: verdict_of(each) for each in points}
    return {"points": points, "cost_of_pass": cost_of_pass(verdicts)}


def point(row: Content, stage: Content, budget: float) -> dict[str, Any]:
    """One method at one budget: its gap, its verdict, and its costs relative to a retraining."""
    retraining, gap = stage["reference"].get("gradient_evaluations"), row["gap"]
    return {
        "budget": budget,
        "gap": None if gap is None else {end: gap[end] for end in ("mean", "low", "high")},
        "verdict": row["verdict"],
        "gradient_evaluations": row["gradient_evaluations"] / retraining if retraining else None,
        "seconds": row["cost"],
        "failed": row["failed"],
    }


def cost_of_pass(verdicts: Mapping[float, str]) -> float | None:
    """The smallest budget from which on every verdict is PASS; None if there is none."""
    budgets = sorted(verdicts, reverse=True)
    return min(takewhile(lambda budget: verdicts[budget] == "PASS", budgets), default=None)


def differences(first: str, second: str, stages: Mapping[float, Content]) -> list[dict[str, Any]]:
    """The difference of the gaps of two methods at each budget at which both finished."""
    rows: list[dict[str, Any]] = []
    for budget, stage in stages.items():
        tables = [stage["methods"].get(name, {}).get("per_seed") for name in (first, second)]
        if all(tables):
            difference = paired_difference(*(each["gap"] for each in tables if each))
            rows.append({"first": first, "second": second, "budget": budget, **difference})
    return rows


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """The mean over seeds of ours minus theirs, with its 95 % t interval; negative if ours are smaller.

    Both ends are None with fewer seeds than `score.interval` needs.
    """
    values = np.subtract(ours, theirs).tolist()
    low, high = interval(values)
    return {"difference": float(np.mean(values)), "low": finite(low), "high": finite(high)}


def margin_of_gap(stage: Content) -> float | None:
    """The mean gap, in points, of a model with every part at its margin; None without margins.

    A part that no verdict tests gets the margin of calibration models.
    """
    gaps = [row["gap"] for row in stage["methods"].values() if row["gap"] is not None]
    if not stage["margins"] or not gaps:
        return None
    parts = list(gaps[0]["parts"])
    metrics = family_of_stage(stage).metrics
    return float(np.mean([metrics[part].points * margin(part, stage) for part in parts]))


def margin(part: str, stage: Content) -> float:
    """The margin of one metric; if a stage fixes none, from the difference of retrained models."""
    if part in stage["margins"]:
        return stage["margins"][part]
    low, high = stage["reference"]["null_band"][part]
    return WIDENING * (high - low) / 2

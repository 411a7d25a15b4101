"""The aims of the study of class erasure: on how many classes a method meets each, and how far it misses.

UA is in the interval of the retrained models, RA at most a point below the original's, KID not above the
original's interval, the mean gap not above that of two retrained models; relearning takes at least half of a
retrained model's steps, and a method at most a tenth of a retraining's gradients.
"""

from collections.abc import Mapping
from statistics import mean
from typing import Any

from unweave.audits.score import FEWEST, interval

AIMS: Mapping[str, str] = {
    "ua": "UA, points",
    "ra": "RA, points",
    "kid": "KID",
    "gap": "gap, points",
    "relearn_10": "relearning, steps",
    "share": "gradients, share",
}
"""The aims with the unit of their shortfall, which is zero or less where a class meets the aim."""

Stage = Mapping[str, Any]


def shortfalls(stage: Stage, name: str) -> dict[str, float] | None:
    """How far a method falls short of each aim on one class; None if it failed."""
    row, before = stage["methods"][name], stage["methods"]["original"]["scores"]
    scores, steps = row["scores"], stage["recipe"]["train"]["steps"]
    if not scores:
        return None
    low, high = interval_of_retrained(stage)
    relearning = mean(values_of_retrained(stage, "relearn_10"))
    result = {
        "ua": max(low - scores["ua"]["value"], scores["ua"]["value"] - high),
        "ra": before["ra"]["value"] - scores["ra"]["value"] - 1,
        "kid": scores["kid"]["value"] - stage["descriptions"]["original"]["kid"][2],
        "relearn_10": relearning / 2 - scores["relearn_10"]["value"],
        "share": row["gradient_evaluations"] / steps - 0.1,
    }
    if stage["floor"] is not None:
        result["gap"] = row["gap"]["mean"] - stage["floor"]
    return {aim: round(shortfall, 9) for aim, shortfall in result.items()}  # a limit met exactly is met


def interval_of_retrained(stage: Stage) -> tuple[float, float]:
    """The 95 % interval of the UA of all retrained models; the range of fewer than three."""
    values = values_of_retrained(stage, "ua")
    return interval(values, (0.0, 100.0)) if len(values) >= FEWEST else (min(values), max(values))


def values_of_retrained(stage: Stage, metric: str) -> list[float]:
    """A metric of every retrained model."""
    reference = stage["reference"]
    return reference["per_seed"].get(metric) or [reference["scores"][metric]["value"]]

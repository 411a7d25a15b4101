"""Ranks methods by their distance from Retrain over paired seeds, and reads a record's tests."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unweave.report.numbers import finite
from unweave.report.ranks import Ranking, ranking

REFERENCES = ("retrain", "original")
"""The references, which do not compete."""


def blocks(stage: Mapping[str, Any], figure: str = "gap") -> list[dict[str, float]]:
    """One block per seed: the figure of each method, NaN if it failed on any seed.

    It is empty if the record has no figures per seed, as those of older versions.
    """
    methods = {name: row for name, row in stage["methods"].items() if name not in REFERENCES}
    values = {name: row.get("per_seed", {}).get(figure) for name, row in methods.items()}
    silent = [name for name, row in methods.items() if values[name] is None and row["failed"] is None]
    if silent or not any(values.values()):
        return []
    return [
        {name: math.nan if each is None else number(each[i]) for name, each in values.items()}
        for i in range(len(stage["seeds"]))
    ]


def number(value: float | None) -> float:
    """The number; NaN if it is missing or not finite."""
    return math.nan if (finite_value := finite(value)) is None else finite_value


def rank_stages(stages: Sequence[Mapping[str, Any]]) -> Ranking | None:
    """Ranks the methods common to all stages by their gap in every seed of every stage.

    None if there is nothing to rank: fewer than two methods or blocks, a record without figures per seed, or
    two stages that share a seed on the same data, which make no independent blocks.
    """
    by_stage = [blocks(stage) for stage in stages]
    owners = [(stage["data"].get("digest"), seed) for stage in stages for seed in stage["seeds"]]
    if not all(by_stage) or len(set(owners)) < len(owners) or len(owners) < 2:
        return None
    common = [name for name in by_stage[0][0] if all(name in each[0] for each in by_stage)]
    if len(common) < 2:
        return None
    return ranking([{name: block[name] for name in common} for each in by_stage for block in each])


def ours_of(stage: Mapping[str, Any]) -> str | None:
    """The method that the others are tested against; the first of them in records of older versions."""
    return next((row["first"] for row in _tests(stage)), None)


def adjusted_p_values(stage: Mapping[str, Any]) -> dict[str, float | None]:
    """The p of each method's paired test of the gap against `ours_of`, with Holm's correction."""
    ours = ours_of(stage)
    return {row["second"]: finite(row["p_holm"]) for row in _tests(stage) if row["first"] == ours}


def _tests(stage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tests of the gap; none with one seed. The schema does not fix the keys of a comparison."""
    if len(stage["seeds"]) < 2:
        return []
    comparisons = [row for row in stage.get("comparisons", []) if {"first", "second", "p_holm"} <= row.keys()]
    return [row for row in comparisons if row.get("metric") == "gap"]

"""On how many runs a method meets each aim of a study, and how far it falls short in the mean."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Shortfalls = Mapping[str, float]
"""By aim, how far a run falls short of it: zero or less where it meets the aim."""

Count = Mapping[str, float | None]
"""How many runs meet an aim, of how many, and the mean and the largest shortfall; None if all runs failed."""


def count_met(runs: Sequence[Shortfalls | None], aims: Iterable[str]) -> dict[str, Count]:
    """Counts by aim; an aim that no run measured has no count.

    Args:
        runs: The runs of a method; None for one that failed, which meets no aim.
        aims: The aims.
    """
    failures = sum(run is None for run in runs)
    if failures == len(runs):
        return {aim: {"met": 0, "of": failures, "mean": None, "most": None} for aim in aims}
    values_by_aim = {aim: [run[aim] for run in runs if run is not None and aim in run] for aim in aims}
    return {
        aim: {
            "met": sum(each <= 0 for each in some),
            "of": len(some) + failures,
            "mean": float(np.mean(some)),
            "most": max(some),
        }
        for aim, some in values_by_aim.items()
        if some
    }


def write_count(count: Count | None) -> str:
    """The number of runs that meet an aim, and the mean shortfall."""
    if count is None:
        return "–"
    if count["mean"] is None:
        return f"0 of {count['of']}, all failed"
    return f"{count['met']} of {count['of']} ({count['mean']:+.3f})"

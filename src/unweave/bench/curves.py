"""Averages curves and sums histograms over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[Sequence[float | None]]
"""A curve: rows of step, value and reliability."""


def mean_trace(traces: Sequence[Mapping[str, Rows]]) -> dict[str, list[list[float]]]:
    """The mean of each of the first seed's curves over the seeds whose curve has the same steps."""
    by_name = {name: [trace[name] for trace in traces if name in trace] for name in traces[0]}
    return {
        name: mean_curve([curve for curve in curves if steps(curve) == steps(curves[0])])
        for name, curves in by_name.items()
    }


def mean_curve(curves: Sequence[Rows]) -> list[list[float]]:
    """The mean of curves, entry by entry, ignoring NaN; NaN if all entries are."""
    values = np.array(curves, dtype=np.float64)
    number = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means = np.where(number, values, 0).sum(0) / number.sum(0)
    return [[int(row[0]), *row[1:].tolist()] for row in means]


def steps(curve: Rows) -> list[float | None]:
    """The steps of the rows of a curve."""
    return [row[0] for row in curve]


def histograms(
    measurements: Mapping[str, Sequence[Mapping[str, Any]]], reference: str, edges: Sequence[float]
) -> dict[str, Any]:
    """Losses over all seeds: of methods and of the retrained models on F, and of these on calibration data.

    Args:
        measurements: The measurements of each seed, by method.
        reference: The name of the retrained models there.
        edges: The edges of the histograms, in the unit of the loss.
    """
    if not any(seed["losses"] for seeds in measurements.values() for seed in seeds):
        return {}
    sources = {name: (name, "forget") for name in measurements if name not in (reference, "retrain")}
    sources |= {"retrain": (reference, "forget"), "calibration": (reference, "calibration")}
    return {
        title: {
            "edges": list(edges),
            "counts": sum_counts([seed["losses"][part] for seed in measurements[name]]),
        }
        for title, (name, part) in sources.items()
    }


def sum_counts(counts: Sequence[Sequence[int]]) -> list[int]:
    """The sum of histograms."""
    return [sum(column) for column in zip(*counts, strict=True)]

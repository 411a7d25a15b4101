"""Summaries for a record: the gap of a model, and the retrained models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values, gap_of_means, gap_parts, mean_gap
from unweave.audits.score import interval, score

GAP_RANGE = (0.0, 100.0)
"""The range of a mean gap, which averages differences of percentages or shares."""


def reference_row(
    references: Sequence[Values],
    calibration_margins: Margins | None,
    metrics: Mapping[str, Metric],
    spread: Margins | None = None,
) -> dict[str, Any]:
    """The row of the retrained models: their own metrics, and those of pairs.

    Args:
        references: The metrics of the retrained models, per seed.
        calibration_margins: The margins from calibration retrains, with the null band of every metric.
        metrics: The metrics by name.
        spread: The mean difference of two retrained models; that of the calibration retrains if None.
    """
    spread = calibration_margins if spread is None else spread
    band = {} if calibration_margins is None else calibration_margins.null_band
    expected = {} if spread is None else spread.expected
    values = {name: [each[name] for each in references] for name in references[0]}
    values |= {name: [value] for name, value in expected.items() if name not in values}
    scores = {
        name: score(
            each,
            mean(each),
            direction=metrics[name].direction,
            null_band=band.get(name),
            bounds=metrics[name].bounds,
        )
        for name, each in values.items()
    }
    rows = {name: {**asdict(each), "gap": None} for name, each in scores.items()}
    return {"scores": rows, "null_band": {name: list(ends) for name, ends in band.items()}}


def gap(
    values: Sequence[Values], references: Sequence[Values], metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """The mean gap in both senses, and its parts."""
    pairs = list(zip(values, references, strict=True))
    gaps = [mean_gap(one, other, metrics) for one, other in pairs]
    low, high = interval(gaps, GAP_RANGE)
    parts_by_seed = [gap_parts(one, other, metrics) for one, other in pairs]
    parts = {name: mean([seed[name] for seed in parts_by_seed]) for name in parts_by_seed[0]}
    means_gap = gap_of_means(values, references, metrics)
    return {"mean": mean(gaps), "low": low, "high": high, "of_means": means_gap, "parts": parts}


def mean(numbers: Sequence[float]) -> float:
    """The mean of some numbers."""
    return float(np.mean(numbers))

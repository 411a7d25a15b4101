"""Margins: the allowed distance of an unlearned model from a retrained one, fixed before any judgement.

A metric's margin is the larger of a floor and 1.5 x the 95 % quantile of the difference between two
*calibration* retrains, of which a verdict needs 12, on seeds that are never reported. Margins estimated on
the reported seeds would fail a genuine retrain half of the time and double the false passes. For a metric of
two models it is the quantile of its value over pairs of retrains. Retrained models may agree to the last
digit, so every metric has a floor, which is at least one example if the metric counts examples. No margin is
wider than 95 % of the metric's range.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from unweave.audits.metrics import Metric, Values, mean_gap

__all__ = ["Margins", "margins"]

RETRAINS = 12
WIDENING = 1.5


@dataclass(frozen=True)
class Margins:
    """The margins, and how much two retrained models differ.

    Args:
        margin: The margin of each tested metric: the primary ones and the measured probes. A difference must
            be smaller to count as equal; for a metric that compares two models, its value must be.
        null_band: The range of each metric among retrained models (see `Score`).
        expected: The mean of each metric over the retrains, or over their pairs for a metric of two models.
        gap_floor: Mean over pairs of retrains of `mean_gap`, in percentage points; NaN if its metrics were
            not measured.
        n: Number of calibration retrains.
    """

    margin: Mapping[str, float]
    null_band: Mapping[str, tuple[float, float]]
    expected: Mapping[str, float]
    gap_floor: float
    n: int


def margins(
    alone: Sequence[Values],
    pairs: Sequence[Values],
    *,
    sizes: Mapping[str, int],
    metrics: Mapping[str, Metric],
) -> Margins:
    """Computes margins from measured values.

    Args:
        alone: The metrics of one model, per retrain.
        pairs: The metrics that compare two models, per pair of retrains.
        sizes: The number of examples that UA (forget), RA (retain), TA (test) and the probe count; a margin
            is at least one example.
        metrics: What each name means.
    """
    margin, band, expected = {}, {}, {}
    for name in alone[0]:
        values = [each[name] for each in alone]
        expected[name] = float(np.mean(values))
        lower, upper = metrics[name].bounds
        reach = spread(values)
        band[name] = (max(lower, expected[name] - reach), min(upper, expected[name] + reach))
        margin[name] = _margin(metrics[name], WIDENING * reach, sizes)
    for name in pairs[0]:
        values = [each[name] for each in pairs]
        expected[name] = float(np.mean(values))
        band[name] = (_quantile(values, 0.025), _quantile(values, 0.975))
        margin[name] = _margin(metrics[name], WIDENING * _quantile(values, 0.95), sizes)
    judged_metrics = [metric.id for metric in metrics.values() if metric.primary or metric.needs_model]
    available = {**alone[0], **pairs[0]}
    has_gap = all(metric.id in available for metric in metrics.values() if metric.points)
    rows = zip(combinations(alone, 2), pairs, strict=True)
    gaps = [mean_gap({**one, **pair}, other, metrics) for (one, other), pair in rows] if has_gap else [np.nan]
    return Margins(
        margin={name: margin[name] for name in judged_metrics if name in margin},
        null_band=band,
        expected=expected,
        gap_floor=float(np.mean(gaps)),
        n=len(alone),
    )


def _margin(metric: Metric, spread: float, sizes: Mapping[str, int]) -> float:
    """The margin from the differences of retrained models, limited to the metric's floor and ceiling."""
    one_example = metric.bounds[1] / sizes[metric.counts] if metric.counts else 0.0
    return min(metric.ceiling, max(metric.floor, one_example, spread))


def spread(values: Sequence[float]) -> float:
    """The 95 % quantile of the difference of two values."""
    return _quantile([abs(one - other) for one, other in combinations(values, 2)], 0.95)


def _quantile(values: Sequence[float], q: float) -> float:
    return float(np.quantile(values, q))

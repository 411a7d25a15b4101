"""Margins: how far an unlearned model may lie from a retrained one, fixed before anything is judged.

A metric's margin is the larger of a floor and 1.5 x the 95 % quantile of the difference between two
*calibration* retrains, of which a verdict needs 12, on seeds that are never reported: margins estimated on
the reported seeds let a genuine retrain fail half of the time and double false passes. A metric of two models
takes the quantile of its value over their pairs. Both have a floor, since retrained models may agree to the
last digit: it stands with the metric, and is one example at least where the metric counts examples. None is
wider than 95 % of the metric's range.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.probes import probe_size
from unweave.audits.metrics import METRICS, Metric, Values, mean_gap, measure, measure_pair

RETRAINS = 12
WIDENING = 1.5


@dataclass(frozen=True)
class Margins:
    """What two retrained models differ by.

    Args:
        margin: What a difference must stay below to count as none, per tested metric: the primary ones, and
            the probes that were measured. For a metric that compares two models: what its value must.
        null_band: Per metric, what retrained models are seen to do (see `Score`).
        expected: Per metric, the mean of the retrains, or of their pairs for a metric of two models.
        gap_floor: Mean over pairs of retrains of `mean_gap`, in percentage points; NaN where its metrics were
            not measured.
        n: Number of calibration retrains.
    """

    margin: Mapping[str, float]
    null_band: Mapping[str, tuple[float, float]]
    expected: Mapping[str, float]
    gap_floor: float
    n: int


def calibrate(
    retrains: Sequence[Evidence], *, probes: Sequence[Values] | None = None, on: HeldOut = "test"
) -> Margins:
    """Margins from models retrained without one forget set, on seeds that must never be reported.

    Args:
        retrains: Their evidence, at least two; a verdict needs 12.
        probes: Per retrain, what `unweave.audits.classifier.probes` measured on it, if anything.
        on: The held-out part that stands for the test part.
    """
    if len(retrains) < 2:
        raise ValueError(f"expected at least two retrained models to compare, found {len(retrains)}")
    if not all(each.finite for each in retrains):
        raise ValueError("a retrained model's logits contain NaN or infinity: retrain it")
    probes = [{}] * len(retrains) if probes is None else probes
    alone = [{**measure(each, on=on), **extra} for each, extra in zip(retrains, probes, strict=True)]
    pairs = [measure_pair(first, second, on=on) for first, second in combinations(retrains, 2)]
    first = retrains[0].with_test(on)
    gone = len(first.labels["forget"])
    sizes = {part: len(first.without_forgotten_classes(part)[1]) for part in ("retain", "test")}
    return margins(alone, pairs, sizes={"forget": gone, "probe": probe_size(gone), **sizes})


def margins(
    alone: Sequence[Values],
    pairs: Sequence[Values],
    *,
    sizes: Mapping[str, int],
    metrics: Mapping[str, Metric] = METRICS,
) -> Margins:
    """Margins from measured values.

    Args:
        alone: Per retrain, the metrics of one model.
        pairs: Per pair of retrains, the metrics that compare two models.
        sizes: Number of examples that UA (forget), RA (retain), TA (test) and the probe count: a margin is
            at least one.
        metrics: What each name means.
    """
    margin, band, expected = {}, {}, {}
    for name in alone[0]:
        values = [each[name] for each in alone]
        spread = _quantile([abs(a - b) for a, b in combinations(values, 2)], 0.95)
        expected[name] = float(np.mean(values))
        least, most = metrics[name].bounds
        band[name] = (max(least, expected[name] - spread), min(most, expected[name] + spread))
        margin[name] = _margin(metrics[name], WIDENING * spread, sizes)
    for name in pairs[0]:
        values = [each[name] for each in pairs]
        expected[name] = float(np.mean(values))
        band[name] = (_quantile(values, 0.025), _quantile(values, 0.975))
        margin[name] = _margin(metrics[name], WIDENING * _quantile(values, 0.95), sizes)
    tested = [metric.id for metric in metrics.values() if metric.primary or metric.needs_model]
    measured = {**alone[0], **pairs[0]}
    has_gap = all(metric.id in measured for metric in metrics.values() if metric.points)
    both = zip(combinations(alone, 2), pairs, strict=True)
    gaps = [mean_gap({**one, **pair}, other, metrics) for (one, other), pair in both] if has_gap else [np.nan]
    return Margins(
        margin={name: margin[name] for name in tested if name in margin},
        null_band=band,
        expected=expected,
        gap_floor=float(np.mean(gaps)),
        n=len(alone),
    )


def _margin(metric: Metric, seen: float, sizes: Mapping[str, int]) -> float:
    """What retrained models were seen to differ by, held between the metric's floor and its ceiling."""
    one_example = metric.bounds[1] / sizes[metric.counts] if metric.counts else 0.0
    return min(metric.ceiling, max(metric.floor, one_example, seen))


def _quantile(values: Sequence[float], q: float) -> float:
    return float(np.quantile(values, q))

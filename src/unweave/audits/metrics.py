"""Metric: what a number of an audit shows and cannot show. The mean gap combines several in points.

The metrics of each family are in `unweave.audits.classifier.metrics` and `unweave.audits.diffusion.metrics`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

__all__ = ["Metric", "Values"]

Direction = Literal["match", "lower", "higher"]
Finding = Literal[
    "under-forgetting", "over-forgetting", "damage", "other answers than retraining", "unlike retraining"
]
Axis = Literal["forgetting", "utility"]
Values = Mapping[str, float]

Outputs = TypeVar("Outputs")
"""The evidence of one model: `Evidence` of a classifier, `Samples` of a generator."""


@dataclass(frozen=True)
class Metric(Generic[Outputs]):
    """The definition of one number of an audit.

    Args:
        id: Its key in records.
        title: Its name in tables.
        direction: The value of a good model: that of retrained models, or as low or as high as possible.
        says: One sentence on its meaning.
        cannot: One sentence on what it does not show.
        unit: "%", "bits", "steps" or nothing (a share or correlation).
        below: The fault of a model whose value is below that of retrained models; None if that is no fault.
        above: The fault of a model whose value is above.
        of_one: Computes it from one model's evidence.
        of_two: Computes it from a model's evidence and a retrained model's.
        primary: Whether a verdict uses it.
        floor: The smallest margin of a verdict, in the metric's unit: the smallest difference that matters to
            a person. Every metric that a verdict tests has one.
        minimum: The smallest value, in the metric's unit, if there is a largest.
        maximum: The largest value, in the metric's unit; a percentage needs none.
        counts: The part whose examples it counts: the margin is then at least one example.
        points: The value of one unit in the mean gap, in percentage points; zero leaves the metric out.
        axis: The axis of a report's figures that shows it; None if none does.
        of_features: Whether it uses the features below the last layer, which a change of that layer can't
            satisfy.
    """

    id: str
    title: str
    direction: Direction
    says: str
    cannot: str
    unit: str = ""
    below: Finding | None = None
    above: Finding | None = None
    of_one: Callable[[Outputs], float] | None = None
    of_two: Callable[[Outputs, Outputs], float] | None = None
    primary: bool = False
    floor: float = 0.0
    minimum: float = 0.0
    maximum: float = math.inf
    counts: str | None = None
    points: float = 0.0
    axis: Axis | None = None
    of_features: bool = False

    @property
    def ceiling(self) -> float:
        """The largest margin of a verdict: almost all values would lie inside a wider one."""
        return 0.95 * self.bounds[1]

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value, in the metric's unit; infinite without a range."""
        if self.unit == "%":
            return 0.0, 100.0
        return (self.minimum, self.maximum) if math.isfinite(self.maximum) else (-math.inf, math.inf)

    @property
    def needs_reference(self) -> bool:
        """Whether it compares two models example by example."""
        return self.of_two is not None

    @property
    def needs_model(self) -> bool:
        """Whether it needs the model, not only logits (such as `unweave.audits.classifier.probes`)."""
        return self.of_one is None and self.of_two is None


def gap_parts(values: Values, reference_values: Values, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The parts of the mean gap: distances from a retrained model, in percentage points.

    For a metric that should be high, only a shortfall counts: a better model is not further from retraining.
    For a metric that compares two models, the distance is its value.
    """
    return {
        metric.id: metric.points * _distance(metric, values, reference_values)
        for metric in metrics.values()
        if metric.points
    }


def mean_gap(values: Values, reference_values: Values, metrics: Mapping[str, Metric]) -> float:
    """The mean of `gap_parts`: for a classifier, of the absolute differences of UA, RA, TA and MIA."""
    return float(np.mean(list(gap_parts(values, reference_values, metrics).values())))


def gap_of_means(
    values: Sequence[Values],
    reference_values: Sequence[Values],
    metrics: Mapping[str, Metric],
) -> float:
    """`mean_gap` of the means over seeds: the literature's figure, never above the mean of `mean_gap`."""
    return mean_gap(_means(values, metrics), _means(reference_values, metrics), metrics)


def _distance(metric: Metric, values: Values, reference_values: Values) -> float:
    if metric.needs_reference:
        return values[metric.id]
    difference = values[metric.id] - reference_values[metric.id]
    return max(0.0, -difference) if metric.direction == "higher" else abs(difference)


def _means(values: Sequence[Values], metrics: Mapping[str, Metric]) -> dict[str, float]:
    return {
        name: float(np.mean([each[name] for each in values]))
        for name, metric in metrics.items()
        if metric.points and name in values[0]
    }

"""Tests of equivalence with retrained models: two one-sided tests, alpha .05 (Schuirmann, 1987)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unweave.audits.metrics import Finding, Metric, Values
from unweave.audits.score import t_interval

Outcome = Literal["equal", "different", "open"]

ROUNDING = 1e-10
"""Tolerance in the unit of any metric: rounding of equal sums is smaller."""


@dataclass(frozen=True)
class Equivalence:
    """The test of one metric against its margin.

    Args:
        difference: Mean paired difference from the retrained models; for a metric of two models, its mean.
        low: Lower end of the 90 % t interval of the difference.
        high: Upper end.
        margin: A difference must be smaller than this to count as equal.
        outcome: "equal" if the interval lies inside the margin, "different" if it lies outside, otherwise
            "open". An interval that ends exactly at the margin is open, since a difference as large as the
            margin counts.
        finding: The fault of a model whose outcome is "different"; otherwise None.
    """

    difference: float
    low: float
    high: float
    margin: float
    outcome: Outcome
    finding: Finding | None

    @property
    def margins(self) -> float:
        """The difference in units of the margin."""
        return abs(self.difference) / self.margin if self.margin > 0 else float("inf")


def equivalences(
    values: Sequence[Values],
    references: Sequence[Values],
    margins: Mapping[str, float],
    *,
    metrics: Mapping[str, Metric],
) -> dict[str, Equivalence]:
    """Tests every primary metric, and the probes that both sides have, against its margin.

    Args:
        values: The metrics of the model, per seed.
        references: The metrics of the retrained model, per seed in the same order.
        margins: The margin of each metric.
        metrics: The metrics by name.
    """
    sides = [*values, *references]
    names = [name for name in margins if metrics[name].primary or all(name in each for each in sides)]
    missing_names = [name for name in names if not all(name in each for each in values)]
    if missing_names:
        raise ValueError(f"a verdict needs the metrics {names}, found no {missing_names}: measure them")
    return {name: equivalence(metrics[name], values, references, margins[name]) for name in names}


def equivalence(
    metric: Metric, values: Sequence[Values], references: Sequence[Values], margin: float
) -> Equivalence:
    """Tests one metric against its margin, on those sides only that would be a fault."""
    differences = np.array([each[metric.id] for each in values])
    if not metric.needs_reference:
        differences = differences - np.array([each[metric.id] for each in references])
    low, high = t_interval(differences.tolist(), level=0.9)
    return from_interval(metric, float(differences.mean()), low, high, margin)


def from_interval(metric: Metric, difference: float, low: float, high: float, margin: float) -> Equivalence:
    """The test of one metric from a difference and its 90 % interval."""
    outer, inner = margin + ROUNDING, margin - ROUNDING
    finding = metric.above if low > outer else metric.below if high < -outer else None
    is_inside = (metric.above is None or high < inner) and (metric.below is None or low > -inner)
    outcome = "different" if finding else "equal" if is_inside else "open"
    return Equivalence(difference, low, high, margin, outcome, finding)

"""METRICS: every number of an audit, what it shows and what it cannot show; `measure` computes them.

No metric has a good absolute value. Compare each with its value for models retrained without the forget set:
after forgetting a random tenth, a perfect retrain has a UA near the test error, not 100.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from unweave.audits.classifier import accuracy, distance, membership
from unweave.audits.classifier.evidence import Evidence, HeldOut

__all__ = ["METRICS", "Metric", "Values"]

Direction = Literal["match", "lower", "higher"]
Finding = Literal["under-forgetting", "over-forgetting", "damage", "wrong examples", "unlike retraining"]
Values = Mapping[str, float]

GAP = ("ua", "ra", "ta", "mia")

Found = TypeVar("Found")
"""The evidence of one model: `Evidence` of a classifier, `Samples` of a generator."""


@dataclass(frozen=True)
class Metric(Generic[Found]):
    """The definition of one number of an audit.

    Args:
        id: Its key in records.
        title: Its name in tables.
        unit: "%", "bits", "steps" or nothing (a share or correlation).
        direction: The value of a good model: that of retrained models, or as low or as high as possible.
        says: One sentence on its meaning.
        cannot: One sentence on what it does not show.
        below: The fault of a model whose value is below that of retrained models; None if that is no fault.
        above: The fault of a model whose value is above.
        alone: Computes it from one model's evidence.
        beside: Computes it from a model's evidence and a retrained model's.
        primary: Whether a verdict uses it.
        floor: The smallest margin of a verdict, in the metric's unit: the smallest difference that matters to
            a person. Every metric that a verdict tests has one.
        minimum: The smallest value, in the metric's unit, if there is a largest.
        maximum: The largest value, in the metric's unit; a percentage needs none.
        counts: The part whose examples it counts: the margin is then at least one example.
        points: The value of one unit in the mean gap, in percentage points; zero leaves the metric out.
    """

    id: str
    title: str
    unit: str
    direction: Direction
    says: str
    cannot: str
    below: Finding | None
    above: Finding | None
    alone: Callable[[Found], float] | None = None
    beside: Callable[[Found, Found], float] | None = None
    primary: bool = False
    floor: float = 0.0
    minimum: float = 0.0
    maximum: float = math.inf
    counts: str | None = None
    points: float = 0.0

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
        return self.beside is not None

    @property
    def needs_model(self) -> bool:
        """Whether it needs the model, not only logits (see `unweave.audits.classifier.probes`)."""
        return self.alone is None and self.beside is None


_ALL: tuple[Metric[Evidence], ...] = (
    Metric(
        id="ua",
        title="UA",
        unit="%",
        direction="match",
        says="Error on the forget examples; as high as a retrained model's, not as high as possible.",
        cannot="Which of them are wrong, and how confident the right ones are.",
        below="under-forgetting",
        above="over-forgetting",
        alone=accuracy.ua,
        primary=True,
        floor=0.5,
        counts="forget",
        points=1.0,
    ),
    Metric(
        id="ra",
        title="RA",
        unit="%",
        direction="match",
        says="Accuracy on the retained examples: what forgetting must not cost.",
        cannot="Small losses of confidence; it saturates at 100 on a memorised training set.",
        below="damage",
        above="unlike retraining",
        alone=accuracy.ra,
        primary=True,
        floor=0.5,
        counts="retain",
        points=1.0,
    ),
    Metric(
        id="ta",
        title="TA",
        unit="%",
        direction="match",
        says="Accuracy on test examples, without the classes forgotten whole: what users see.",
        cannot="Damage to a group too small to move the mean.",
        below="damage",
        above="unlike retraining",
        alone=accuracy.ta,
        primary=True,
        floor=0.5,
        counts="test",
        points=1.0,
    ),
    Metric(
        id="mia",
        title="MIA",
        unit="%",
        direction="match",
        says="Share of the forget examples that an attack on the confidence of the true class calls unseen.",
        cannot="What a stronger attack finds; it treats all examples alike, and is noisy.",
        below="under-forgetting",
        above="over-forgetting",
        alone=membership.mia,
        points=1.0,
    ),
    Metric(
        id="auc",
        title="AUC",
        unit="",
        direction="match",
        says="How well the margin tells forget examples from unseen ones; high: they still look like "
        "training data.",
        cannot="Single examples that stand out: it averages over all pairs.",
        below="over-forgetting",
        above="under-forgetting",
        alone=membership.auc,
        primary=True,
        floor=0.02,
        maximum=1.0,
    ),
    Metric(
        id="tv",
        title="TV on F",
        unit="",
        direction="lower",
        says="Mean distance of the probabilities on F from a retrained model's: right on the right examples?",
        cannot="Which examples differ, and whether it matters.",
        below=None,
        above="wrong examples",
        beside=distance.tv,
        primary=True,
        floor=0.01,  # a hundredth of the probability, of the average example
        maximum=1.0,
    ),
    Metric(
        id="rank",
        title="rank on F",
        unit="",
        direction="higher",
        says="Rank correlation of the margins on F with a retrained model's: are the same examples hard?",
        cannot="The level: a model that is sure of everything can order it rightly.",
        below="wrong examples",
        above=None,
        beside=distance.rank,
        minimum=-1.0,
        maximum=1.0,
    ),
    Metric(
        id="js",
        title="JS on F",
        unit="bits",
        direction="lower",
        says="Mean Jensen-Shannon divergence of the predictions on F from a retrained model's.",
        cannot="More than calibration where both models agree on the class.",
        below=None,
        above="wrong examples",
        beside=distance.js,
        maximum=1.0,
    ),
    Metric(
        id="agreement_forget",
        title="agreement on F",
        unit="%",
        direction="higher",
        says="Share of the forget examples on which it names the same class as a retrained model.",
        cannot="How sure they are; two retrained models also disagree.",
        below="wrong examples",
        above=None,
        beside=distance.agreement_forget,
    ),
    Metric(
        id="agreement_test",
        title="agreement on test",
        unit="%",
        direction="higher",
        says="Share of the test examples on which it names the same class as a retrained model.",
        cannot="Anything about the forget examples.",
        below="damage",
        above=None,
        beside=distance.agreement_test,
    ),
    Metric(
        id="streisand",
        title="Streisand tail",
        unit="%",
        direction="match",
        says="Share of the forget examples whose loss is above a retrained model's 99 % quantile on them.",
        cannot="Much on a small forget set: of a few hundred examples 1 % is a handful.",
        below=None,
        above="over-forgetting",
        beside=distance.streisand,
    ),
    Metric(
        id="probe",
        title="probe",
        unit="%",
        direction="match",
        says="Share of the forget examples whose class a linear classifier finds in the features.",
        cannot="Residue in an absolute sense: a retrained model's features separate unseen classes as well.",
        below="over-forgetting",
        above="under-forgetting",
        floor=0.5,
        counts="probe",
    ),
    Metric(
        id="relearn",
        title="relearning",
        unit="steps",
        direction="match",
        says="Steps of fine-tuning on ten forget examples until the model knows half of the others.",
        cannot="Other attacks; and a class that is masked by a large bias is relearned late.",
        below="under-forgetting",
        above="over-forgetting",
        floor=1.0,
    ),
)
METRICS: dict[str, Metric[Evidence]] = {metric.id: metric for metric in _ALL}


def measure(
    evidence: Evidence, reference: Evidence | None = None, *, on: HeldOut = "test"
) -> dict[str, float]:
    """Every metric of one model; those that need a reference are left out without one.

    Args:
        evidence: The model's answers. If one logit is NaN or infinite, every metric is NaN.
        reference: A retrained model's answers to the same examples, in any order.
        on: The held-out part used as test set; "calibration" while tuning, which must not see the test set.
    """
    evidence = evidence.with_test(on)
    if reference is not None:
        reference = reference.with_test(on)
        if not reference.finite:
            raise ValueError("the reference model's logits contain NaN or infinity: retrain it")
        evidence = evidence.like(reference)
    computed = [metric for metric in METRICS.values() if metric.alone or (metric.beside and reference)]
    if not evidence.finite:
        return {metric.id: float("nan") for metric in computed}
    return {metric.id: _value(metric, evidence, reference) for metric in computed}


def measure_pair(evidence: Evidence, reference: Evidence, *, on: HeldOut = "test") -> dict[str, float]:
    """The metrics that compare two models, and no others."""
    evidence, reference = evidence.with_test(on).like(reference.with_test(on)), reference.with_test(on)
    return {metric.id: metric.beside(evidence, reference) for metric in METRICS.values() if metric.beside}


def gap_parts(
    values: Values, reference_values: Values, metrics: Mapping[str, Metric] = METRICS
) -> dict[str, float]:
    """The parts of the mean gap: distances from a retrained model, in percentage points.

    For a metric that should be high, only a shortfall counts: a better model is not further from retraining.
    For a metric that compares two models, the distance is its value.
    """
    return {
        metric.id: metric.points * _distance(metric, values, reference_values)
        for metric in metrics.values()
        if metric.points
    }


def mean_gap(values: Values, reference_values: Values, metrics: Mapping[str, Metric] = METRICS) -> float:
    """The mean of `gap_parts`: for a classifier, of the absolute differences of UA, RA, TA and MIA."""
    return float(np.mean(list(gap_parts(values, reference_values, metrics).values())))


def gap_of_means(
    values: Sequence[Values],
    reference_values: Sequence[Values],
    metrics: Mapping[str, Metric] = METRICS,
) -> float:
    """`mean_gap` of the means over seeds: the literature's figure, never above the mean of `mean_gap`."""
    return mean_gap(_means(values, metrics), _means(reference_values, metrics), metrics)


def _value(metric: Metric[Evidence], evidence: Evidence, reference: Evidence | None) -> float:
    if metric.alone is not None:
        return metric.alone(evidence)
    assert metric.beside is not None and reference is not None
    return metric.beside(evidence, reference)


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

"""METRICS: every number of a classifier's audit; `measure` computes them.

No metric has a good absolute value. Compare each with its value for models retrained without the forget set:
after forgetting a random tenth, a perfect retrain has a UA near the test error, not 100.
"""

from unweave.audits.classifier import accuracy, distance, membership
from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.held_out import HELD_OUT_TV
from unweave.audits.metrics import Metric

__all__ = ["METRICS"]

GAP = ("ua", "ra", "ta", "mia")
"""The metrics whose mean difference is the mean gap."""

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
        of_one=accuracy.ua,
        primary=True,
        floor=0.5,
        counts="forget",
        points=1.0,
        axis="forgetting",
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
        of_one=accuracy.ra,
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
        of_one=accuracy.ta,
        primary=True,
        floor=0.5,
        counts="test",
        points=1.0,
        axis="utility",
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
        of_one=membership.mia,
        points=1.0,
    ),
    Metric(
        id="auc",
        title="AUC",
        direction="match",
        says="How well the margin tells forget examples from unseen ones; high: they still look like "
        "training data.",
        cannot="Single examples that stand out: it averages over all pairs.",
        below="over-forgetting",
        above="under-forgetting",
        of_one=membership.auc,
        primary=True,
        floor=0.02,
        maximum=1.0,
    ),
    Metric(
        id="tv",
        title="TV on F",
        direction="lower",
        says="Mean distance of the probabilities on F from a retrained model's: right on the right examples?",
        cannot="Which examples differ, and whether it matters.",
        above="other answers than retraining",
        of_two=distance.tv,
        primary=True,
        floor=0.01,  # a hundredth of the probability, of the average example
        maximum=1.0,
    ),
    Metric(
        id="rank",
        title="rank on F",
        direction="higher",
        says="Rank correlation of the margins on F with a retrained model's: are the same examples hard?",
        cannot="The level: a model that is sure of everything can order it rightly.",
        below="other answers than retraining",
        of_two=distance.rank,
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
        above="other answers than retraining",
        of_two=distance.js,
        maximum=1.0,
    ),
    Metric(
        id="agreement_forget",
        title="agreement on F",
        unit="%",
        direction="higher",
        says="Share of the forget examples on which it names the same class as a retrained model.",
        cannot="How sure they are; two retrained models also disagree.",
        below="other answers than retraining",
        of_two=distance.agreement_forget,
    ),
    Metric(
        id="agreement_test",
        title="agreement on test",
        unit="%",
        direction="higher",
        says="Share of the test examples on which it names the same class as a retrained model.",
        cannot="Anything about the forget examples.",
        below="damage",
        of_two=distance.agreement_test,
    ),
    Metric(
        id="streisand",
        title="Streisand tail",
        unit="%",
        direction="match",
        says="Share of the forget examples whose loss is above a retrained model's 99 % quantile on them.",
        cannot="Much on a small forget set: of a few hundred examples 1 % is a handful.",
        above="over-forgetting",
        of_two=distance.streisand,
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
        of_features=True,
    ),
    Metric(
        id="silhouette",
        title="silhouette",
        direction="match",
        says="How compact the class of the forget examples is in the features, and how far from others.",
        cannot="Residue in an absolute sense; and a class that features show otherwise than by its mean.",
        below="over-forgetting",
        above="under-forgetting",
        floor=0.01,
        minimum=-1.0,
        maximum=1.0,
        of_features=True,
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
    Metric(
        id=HELD_OUT_TV,
        title="TV from held-out",
        direction="match",
        says="Mean distance of the probabilities on F from those of models trained without a fold that holds "
        "the example: about as far as a retrained model's?",
        cannot="Which examples differ; a model can be as far away in another direction.",
        above="other answers than retraining",
        floor=0.01,
        maximum=1.0,
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
    metrics = [metric for metric in METRICS.values() if metric.of_one or (metric.of_two and reference)]
    if not evidence.finite:
        return {metric.id: float("nan") for metric in metrics}
    return {metric.id: _value(metric, evidence, reference) for metric in metrics}


def measure_pair(evidence: Evidence, reference: Evidence, *, on: HeldOut = "test") -> dict[str, float]:
    """The metrics that compare two models, and no others."""
    evidence, reference = evidence.with_test(on).like(reference.with_test(on)), reference.with_test(on)
    return {metric.id: metric.of_two(evidence, reference) for metric in METRICS.values() if metric.of_two}


def _value(metric: Metric[Evidence], evidence: Evidence, reference: Evidence | None) -> float:
    if metric.of_one is not None:
        return metric.of_one(evidence)
    assert metric.of_two is not None and reference is not None
    return metric.of_two(evidence, reference)

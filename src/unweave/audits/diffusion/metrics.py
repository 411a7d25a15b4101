"""GENERATION: every number of a generator's audit, to compare with retrained generators.

On forgotten conditions a model should equal retrained ones, whose UA is the reference, even if the class
could be rarer. On retained conditions it should be no worse than they are, so those figures have one-sided
bounds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from unweave.audits.diffusion import recognition
from unweave.audits.diffusion.kid import kid
from unweave.audits.diffusion.manifold import precision, recall
from unweave.audits.diffusion.samples import Rows, Samples
from unweave.audits.metrics import Metric


def kid_retained(samples: Samples) -> float:
    """KID of all images of retained conditions from real images of these classes."""
    return kid(
        samples.groups(samples.retained_conditions),
        [samples.real[each] for each in samples.retained_classes],
    )


def kid_forgotten(samples: Samples, reference: Samples) -> float:
    """KID of the images of forgotten conditions from another generator's under the same."""
    return kid(samples.groups(samples.forgotten), reference.groups(samples.forgotten), paired=True)


def kid_kept(samples: Samples, reference: Samples) -> float:
    """KID of all images of retained conditions from another generator's under the same."""
    return kid(
        samples.groups(samples.retained_conditions),
        reference.groups(samples.retained_conditions),
        paired=True,
    )


def precision_retained(samples: Samples) -> float:
    """Precision over the retained conditions, in percent."""
    return 100 * precision(generated=_retained_features(samples), real=_real_features(samples)).value


def recall_retained(samples: Samples) -> float:
    """Recall over the retained conditions, in percent."""
    return 100 * recall(generated=_retained_features(samples), real=_real_features(samples)).value


_ALL: tuple[Metric[Samples], ...] = (
    Metric(
        id="ua",
        title="UA",
        unit="%",
        direction="match",
        says="Share of the images under forgotten conditions that are not taken for the forgotten class.",
        cannot="What they show instead: noise has a UA of 100.",
        below="under-forgetting",
        above="over-forgetting",
        of_one=recognition.ua,
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
        direction="higher",
        says="Share of the images under retained conditions that are taken for their class.",
        cannot="Damage to one class of many, lost variety, and what the recogniser itself gets wrong.",
        below="damage",
        of_one=recognition.ra,
        primary=True,
        floor=1.0,
        counts="retain",
        points=1.0,
        axis="utility",
    ),
    Metric(
        id="kid",
        title="KID",
        direction="lower",
        says="Kernel distance, for the recogniser, of the images under retained conditions from real ones.",
        cannot="What the recogniser ignores; a KID in Inception's space is another number.",
        above="damage",
        of_one=kid_retained,
        primary=True,
        floor=0.01,
    ),
    Metric(
        id="fid",
        title="FID",
        direction="lower",
        says="Frechet distance of the images under retained conditions from held-out ones, by Inception.",
        cannot="Anything where images are few, or unlike photographs; with other numbers of images it is "
        "another number (float32; torch-fidelity resizes bytes to 299 pixels).",
        above="damage",
        floor=1.0,
    ),
    Metric(
        id="class_tv",
        title="TV of classes",
        direction="lower",
        says="Distance of the classes that forgotten conditions turn into from a retrained model's.",
        cannot="How the images of a class look. A mixture of many retrained models is nearer to each of them "
        "than they are to one another.",
        above="unlike retraining",
        of_two=recognition.class_tv,
        primary=True,
        floor=0.01,
        maximum=1.0,
        counts="forget",
        points=100.0,
    ),
    Metric(
        id="kid_forget",
        title="KID on F",
        direction="lower",
        says="Kernel distance of the images under forgotten conditions from a retrained model's.",
        cannot="Which of the two looks better.",
        above="unlike retraining",
        of_two=kid_forgotten,
        primary=True,
        floor=0.01,
    ),
    Metric(
        id="kid_retain",
        title="KID on R",
        direction="lower",
        says="Kernel distance of the images under retained conditions from a retrained model's.",
        cannot="Which of the two is nearer to real images.",
        above="damage",
        of_two=kid_kept,
    ),
    Metric(
        id="p_forget",
        title="p on F",
        direction="match",
        says="Mean probability of the forgotten class under its own condition.",
        cannot="Whether few images show it clearly or many faintly.",
        below="over-forgetting",
        above="under-forgetting",
        of_one=recognition.probability,
        maximum=1.0,
    ),
    Metric(
        id="entropy",
        title="entropy on F",
        unit="bits",
        direction="match",
        says="How unclear single images under forgotten conditions are to the recogniser.",
        cannot="That a clear image is a good one: a classifier can be sure of noise.",
        below="unlike retraining",
        above="unlike retraining",
        of_one=recognition.entropy,
    ),
    Metric(
        id="effective",
        title="classes on F",
        direction="match",
        says="Effective number of classes that forgotten conditions turn into; near 1: all become one class.",
        cannot="Which classes they are.",
        below="unlike retraining",
        above="unlike retraining",
        of_one=recognition.effective_classes,
        primary=True,
        floor=0.1,
    ),
    Metric(
        id="top",
        title="largest class on F",
        unit="%",
        direction="match",
        says="Share of the images under forgotten conditions that the most frequent class gets.",
        cannot="Which class it is.",
        below="unlike retraining",
        above="unlike retraining",
        of_one=recognition.top_share,
    ),
    Metric(
        id="precision",
        title="precision",
        unit="%",
        direction="higher",
        says="Share of the images under retained conditions that lie among real ones.",
        cannot="Whether variety was lost.",
        below="damage",
        of_one=precision_retained,
    ),
    Metric(
        id="recall",
        title="recall",
        unit="%",
        direction="higher",
        says="Share of the real images of retained classes that lie among generated ones.",
        cannot="Whether images are broken: a few that are far out reach over everything.",
        below="damage",
        of_one=recall_retained,
    ),
    Metric(
        id="drift_pixel",
        title="drift, pixels",
        direction="lower",
        says="How far an image under a retained condition moved from the original's, in grey levels.",
        cannot="Whether it is worse: a retrained model draws other images, too.",
        above="damage",
        floor=1.0,  # a grey level, of 255
    ),
    Metric(
        id="drift_feature",
        title="drift, features",
        direction="lower",
        says="The same in the recogniser's features, whose size is 1 on real images.",
        cannot="Whether it is worse, and what the recogniser ignores.",
        above="damage",
        floor=0.01,
    ),
)
GENERATION: dict[str, Metric[Samples]] = {metric.id: metric for metric in _ALL}


def measure_generation(
    samples: Samples, reference: Samples | None = None, metrics: Mapping[str, Metric[Any]] = GENERATION
) -> dict[str, float]:
    """Every metric of one generator; those that need a retrained one are left out without it."""
    values = {name: metric.of_one(samples) for name, metric in metrics.items() if metric.of_one is not None}
    return values if reference is None else values | measure_generation_pair(samples, reference, metrics)


def measure_generation_pair(
    samples: Samples, reference: Samples, metrics: Mapping[str, Metric[Any]] = GENERATION
) -> dict[str, float]:
    """The metrics that compare two generators, and no others.

    Raises:
        ValueError: If they differ in recogniser or forgotten conditions.
    """
    for name in ("space", "forgotten"):
        ours, theirs = vars(samples)[name], vars(reference)[name]
        if ours != theirs:
            raise ValueError(f"two generators must have one {name} to be compared, found {ours} and {theirs}")
    comparisons = {name: metric.of_two for name, metric in metrics.items() if metric.of_two is not None}
    return {name: of(samples, reference) for name, of in comparisons.items()}


def _retained_features(samples: Samples) -> Rows:
    return np.concatenate(samples.groups(samples.retained_conditions))


def _real_features(samples: Samples) -> Rows:
    return np.concatenate([samples.real[each] for each in samples.retained_classes])

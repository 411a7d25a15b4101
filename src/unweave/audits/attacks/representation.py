"""What the features still hold: the inputs of the last layer with weights, under four classifiers.

A head can hide what the features contain. F is halved; one half helps to fit, the other is classified:

- linear probe: ridge regression on the retain set and half of F (`unweave.audits.classifier.probes`);
- nearest centre: the class whose mean feature is nearest;
- few shots: a fresh head, fitted to five examples of each class;
- membership: a linear classifier tells the retain set from unseen examples; its AUC for F against others.

A retrained model's features separate classes that it never saw as well, so only the difference counts.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from unweave.audits.attack import Attack, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.classifier.collect import Cut
from unweave.audits.classifier.probes import (
    MOST,
    Features,
    Labels,
    classify_linearly,
    features_of,
    ridge,
    sample,
)
from unweave.audits.intervals import share_interval
from unweave.audits.rates import delong
from unweave.audits.score import Interval

NAME = "representation"
SHOTS = 5
FEWEST_EXAMPLES = 4
"""The fewest forget examples and unseen ones that can be halved."""


def examine(subject: Subject) -> Measurements:
    """For each forget example of the second half whether each classifier is right, and membership scores.

    Empty with fewer than four forget examples or unseen ones.
    """
    generator = torch.Generator().manual_seed(0)
    parts = [sample(each, MOST, generator) for each in (subject.cuts["retain"], subject.cuts["forget"])]
    unseen = sample(subject.unseen, MOST, generator)
    if min(len(parts[1][1]), len(unseen[1])) < FEWEST_EXAMPLES:
        return {}
    (retain, retain_labels), (forget, truth), (unseen_features, _) = (
        features_and_labels(subject, each) for each in (*parts, unseen)
    )
    half, middle = len(forget) // 2, len(unseen_features) // 2
    fit, labels = torch.cat([retain, forget[:half]]), torch.cat([retain_labels, truth[:half]])
    queries, answers = forget[half:], truth[half:]
    shots = first_of_each(labels, generator)
    sides = torch.cat([torch.ones(len(retain)), torch.zeros(middle)]).long()
    member_features = with_bias(torch.cat([retain, unseen_features[:middle]]))
    member = ridge(member_features, one_hot(sides, 2).double())
    return {
        "linear probe": hits(classify_linearly(fit, labels, queries), answers),
        "nearest centre": hits(nearest_centre(fit, labels, queries), answers),
        "few shots": hits(classify_linearly(fit[shots], labels[shots], queries), answers),
        "forget": membership(forget, member_features, member),
        "unseen": membership(unseen_features[middle:], member_features, member),
    }


def features_and_labels(subject: Subject, cut: Cut) -> tuple[Features, Labels]:
    """The features and the labels of some examples."""
    source, order = cut
    return features_of(subject.model, cut, subject.device), source.labels[order]


def first_of_each(labels: Labels, generator: torch.Generator) -> Int64[Tensor, " few"]:
    """The positions of at most five examples of each class, in a random order."""
    order = torch.randperm(len(labels), generator=generator)
    positions = [order[labels[order] == label][:SHOTS] for label in labels.unique()]
    return torch.cat(positions)


def nearest_centre(fit: Features, labels: Labels, queries: Features) -> Labels:
    """The classes whose mean is nearest."""
    classes = labels.unique()
    centres = torch.stack([fit[labels == label].mean(0) for label in classes])
    return classes[torch.cdist(queries, centres).argmin(1)]


def with_bias(features: Features) -> Features:
    """The features, and a constant of their own size."""
    size = features.square().mean().sqrt().clamp(min=1e-12)
    return torch.cat([features, size.expand(len(features), 1)], dim=1)


def membership(features: Features, fit: Features, weights: Float64[Tensor, "_ 2"]) -> list[float]:
    """How much more a linear classifier takes examples for members than for others."""
    bias = fit[:1, -1:].expand(len(features), 1)
    scores = torch.cat([features, bias], dim=1) @ weights
    return (scores[:, 1] - scores[:, 0]).tolist()


def hits(predictions: Labels, answers: Labels) -> list[float]:
    """1 for each example whose class was found."""
    return (predictions == answers).double().tolist()


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The share of F that each classifier gets right, and the AUC of the membership."""
    measurements = model.measurements[NAME]
    if not measurements:
        return {}
    shares = {
        name: share_interval(measurements[name]) for name in ("linear probe", "nearest centre", "few shots")
    }
    members, non_members = (
        torch.tensor(measurements[part]).double().numpy() for part in ("forget", "unseen")
    )
    return {**shares, "membership": Interval(*delong(members, non_members))}


ATTACK = Attack(
    name=NAME,
    paper="Alain & Bengio, 2016, arXiv 1610.01644; Goel et al., 2022, arXiv 2201.06640",
    evidence="features of the model and of retrained ones",
    tier=0,
    says="How well the features alone tell the classes of forget examples, and F from unseen examples.",
    cannot="What other layers hold, and what a classifier with more power would find.",
    figures=attack_figures,
    examine=examine,
    share_of_forget=0.5,
    gradients=16,
    default=True,
)

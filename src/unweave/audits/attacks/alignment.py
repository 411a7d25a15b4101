"""Update alignment: does the deletion point at its records? The cheap proxy of unlearning inversion.

Whoever holds the model before and after a deletion holds the update between them. Its cosine with the
gradient of the loss of an example at the model before is large for the records that were ascended
(`unweave.audits.attacks.inversion`). The figure is the AUC of that cosine for F against unseen examples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from unweave.audits.attacks.attack import Attack, Exhibit, Figures, Shown, Subject
from unweave.audits.attacks.inversion import cosine, update_between
from unweave.audits.attacks.rates import delong
from unweave.audits.classifier.collect import Cut
from unweave.audits.classifier.probes import sample
from unweave.audits.score import Interval
from unweave.tasks import call, evaluating
from unweave.tasks.classifier import to_device
from unweave.weights.params import Params

NAME = "update-alignment"
MOST = 100
"""The most examples of F, and of unseen ones: each takes a gradient of its own."""


def examine(subject: Subject) -> Exhibit:
    """The cosine of each example; empty for the original itself, which has no update.

    Raises:
        ValueError: If the model has other weights than the original.
    """
    if same_weights(subject):
        return {}
    update = update_between(subject.original, subject.model)
    generator = torch.Generator().manual_seed(0)
    parts = {"forget": subject.cuts["forget"], "unseen": subject.unseen}
    return {name: cosines(subject, update, sample(cut, MOST, generator)) for name, cut in parts.items()}


def same_weights(subject: Subject) -> bool:
    """Whether the model has the weights of the original."""
    ours, theirs = (dict(each.named_parameters()) for each in (subject.model, subject.original))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def cosines(subject: Subject, update: Params, cut: Cut) -> list[float]:
    """The cosine of the update with the gradient of each example, at the model before."""
    model, (source, order) = subject.original, cut
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = []
    with evaluating(model):
        for raw in source.stream(order.split(1)):
            loss = cross_entropy(call(model, to_device(raw, subject.device)), raw.label.to(subject.device))
            slopes = torch.autograd.grad(loss, [*weights.values()], allow_unused=True)
            gradient = {
                name: torch.zeros_like(p) if slope is None else slope
                for (name, p), slope in zip(weights.items(), slopes, strict=True)
            }
            found.append(float(cosine(gradient, update)))
    return found


def attack_figures(shown: Shown, retrained: Sequence[Shown]) -> Figures:
    """The AUC of F against unseen examples; none for a model without an update."""
    exhibit = shown.exhibits[NAME]
    if not exhibit or min(map(len, exhibit.values())) < 2:
        return {}
    return {"auc": Interval(*delong(np.array(exhibit["forget"]), np.array(exhibit["unseen"])))}


ATTACK = Attack(
    name=NAME,
    paper="ours; after Hu et al., S&P 2024, arXiv 2404.03233",
    evidence="the weights before and after the deletion",
    tier=0,
    fewest=2,
    says="How well the update of the deletion tells forget examples from unseen ones.",
    cannot="That records are safe: reconstruction (inversion) may find more, and so may other norms.",
    figures=attack_figures,
    examine=examine,
    gradients=2 * MOST,
    above="a leak of the deletion",
    below=None,
    default=False,
)

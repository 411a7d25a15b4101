"""Update alignment: does the deletion point at its records? The cheap proxy of unlearning inversion.

Whoever holds the model before and after a deletion holds the update between them, here of the weights that
the model before trains. Its cosine with the gradient of the loss of an example at the model before is large
for the records that were ascended (`unweave.audits.attacks.inversion`). The figure is the AUC of that cosine
for F against unseen examples.
"""

from collections.abc import Sequence

import numpy as np
import torch

from unweave.audits.attack import Attack, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.attacks.inversion import align, any_change, weight_changes
from unweave.audits.classifier.probes import sample
from unweave.audits.rates import delong
from unweave.audits.score import Interval

NAME = "update-alignment"
MOST = 100
"""The most examples of F, and of unseen ones: each takes a gradient of its own."""


def examine(subject: Subject) -> Measurements:
    """The cosine of each example; empty for a model without an update, such as the original.

    Raises:
        ValueError: If the model has other weights than the original.
    """
    update = weight_changes(subject.original, subject.model)
    if not any_change(update):
        return {}
    generator = torch.Generator().manual_seed(0)
    parts = {"forget": subject.cuts["forget"], "unseen": subject.unseen}
    return {
        name: align(subject.original, update, sample(cut, MOST, generator), subject.device)
        for name, cut in parts.items()
    }


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The AUC of F against unseen examples; none for a model without an update."""
    kept = model.measurements[NAME]
    if not kept or min(map(len, kept.values())) < 2:
        return {}
    return {"auc": Interval(*delong(np.array(kept["forget"]), np.array(kept["unseen"])))}


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

"""Update alignment: does the deletion point at its records? The cheap proxy of unlearning inversion.

Whoever holds the model before and after a deletion holds the update between them, here of the weights that
the model before trains. Its cosine with the gradient of the loss of an example at the model before is large
for the records that were ascended (`inversion.py`). The figure is the AUC of that cosine
for F against unseen examples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from unweave.audits.attack import Attack, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.classifier.collect import Cut
from unweave.audits.classifier.probes import sample
from unweave.audits.rates import delong
from unweave.audits.score import Interval
from unweave.descent.hessian import refuse_error_nodes
from unweave.record.checkpoint import difference, shapes
from unweave.tasks import Inputs, call, evaluating
from unweave.tasks.classifier import to_device
from unweave.weights.params import Params, norm

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


def weight_changes(before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    """The change of every weight that the first model trains, whether or not the second one does.

    Raises:
        ValueError: If the models have other weights.
    """
    old, new = (dict(each.named_parameters()) for each in (before, after))
    mismatch = difference(shapes(old), shapes(new))
    if mismatch:
        raise ValueError(f"an update is between two models of one architecture, found another: {mismatch}")
    return {name: (new[name] - p).detach() for name, p in old.items() if p.requires_grad}


def any_change(update: Params) -> bool:
    """Whether any weight changed."""
    return any(bool(change.any()) for change in update.values())


def align(model: nn.Module, update: Params, cut: Cut, device: torch.device | str) -> list[float]:
    """The cosine of the update with the gradient of each example: near 1 for the one that was ascended.

    Args:
        model: The model before the deletion. It stays unchanged.
        update: The change of its weights; see `weight_changes`.
        cut: The source and the positions of the examples.
        device: The device of the model.
    """
    source, order = cut
    with evaluating(model):
        return [
            float(cosine(loss_gradient(model, to_device(raw, device), raw.label.to(device)), update))
            for raw in source.stream(order.split(1))
        ]


def loss_gradient(
    model: nn.Module, inputs: Inputs, labels: Int[Tensor, " batch"], *, keep_graph: bool = False
) -> dict[str, Tensor]:
    """The gradient of the summed cross-entropy of some examples by the trainable weights; 0 if unused."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = functional.cross_entropy(call(model, inputs), labels, reduction="sum")
    gradients = torch.autograd.grad(
        loss, [*weights.values()], create_graph=keep_graph, allow_unused=True, materialize_grads=True
    )
    if keep_graph:
        refuse_error_nodes(gradients)
    return dict(zip(weights, gradients, strict=True))


def cosine(gradient: Params, update: Params) -> Float[Tensor, ""]:
    """The cosine of a gradient with an update over all weights that moved."""
    moved_gradient = {name: g * (update[name] != 0) for name, g in gradient.items()}
    product = torch.stack([(g * update[name]).sum() for name, g in moved_gradient.items()]).sum()
    size = torch.stack([g.square().sum() for g in moved_gradient.values()]).sum().clamp(min=1e-30).sqrt()
    return product / (size * norm(update))


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The AUC of F against unseen examples; none for a model without an update."""
    measurements = model.measurements[NAME]
    if not measurements or min(map(len, measurements.values())) < 2:
        return {}
    return {"auc": Interval(*delong(np.array(measurements["forget"]), np.array(measurements["unseen"])))}


ATTACK = Attack(
    name=NAME,
    paper="ours; after Hu et al., S&P 2024, arXiv 2404.03233",
    evidence="the weights before and after the deletion",
    tier=0,
    says="How well the update of the deletion tells forget examples from unseen ones.",
    cannot="That records are safe: reconstruction (inversion) may find more, and so may other norms.",
    figures=attack_figures,
    examine=examine,
    gradients=2 * MOST,
    above="a leak of the deletion",
    below=None,
)

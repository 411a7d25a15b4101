"""Unlearning inversion (Hu et al., S&P 2024), https://arxiv.org/abs/2404.03233: a deletion leaks its record.

Whoever holds the model before and after a deletion holds the update Delta between them. One ascent step on a
record x gives Delta in the direction of the gradient of its loss, so x is found by matching gradients:

    min over x of  1 - <g(x), Delta> / (|g(x)| |Delta|) + 0.01 TV(x),    g(x) = grad loss(x, y) at theta,

with one cosine over all weights, sign gradients, AdamW whose rate halves after 3/8, 5/8 and 7/8 of the
iterations, inputs kept in their range, and several restarts of which the least loss wins.

Ours: only weights that moved are matched, so a masked update is attacked as well as a whole one; and the
figure is re-identification, whether the record is nearest to its reconstruction among decoys of its class.
An audit runs it with `reidentification.py`.
Released code scores restarts without the normalisation that it optimised with; here one function does both.
A proxy without optimisation is `update_alignment.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.audits.attacks.update_alignment import cosine, loss_gradient
from unweave.choices import refuse_outside
from unweave.tasks import Inputs, evaluating
from unweave.weights.params import Params


@dataclass(frozen=True)
class Search:
    """Settings of the search for the inputs of a deleted record.

    Args:
        iterations: The steps of each restart; the paper takes 10,000.
        restarts: The number of restarts, each from Gaussian noise.
        lr: The rate of AdamW.
        smoothness: The weight of the total variation.
        least: The smallest value of an input, as the model gets it: after any normalisation.
        most: The largest.
        key: The keyword by which the model takes its input; None if by position.
    """

    iterations: int = 400
    restarts: int = 2
    lr: float = 0.04
    smoothness: float = 0.01
    least: float = 0.0
    most: float = 1.0
    key: str | None = None

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "iterations", "restarts")
        refuse_outside(self, "(0, inf)", "lr")
        refuse_outside(self, "[0, inf)", "smoothness")
        if not self.least < self.most:
            raise ValueError(f"least must be below most, found {self.least} and {self.most}")


@dataclass(frozen=True)
class Recovered:
    """A reconstruction.

    Args:
        inputs: The inputs of the records [record ...], in the range of the search.
        losses: The matching loss of every restart; the inputs have the least.
    """

    inputs: Tensor
    losses: tuple[float, ...]


def recover(
    model: nn.Module,
    update: Params,
    labels: Int[Tensor, " record"],
    shape: Sequence[int],
    *,
    image: Sequence[int] | None = None,
    search: Search = Search(),
    seed: int = 0,
) -> Recovered:
    """Reconstructs the inputs of the records whose deletion caused an update, all together.

    Args:
        model: The model before the deletion. It stays unchanged.
        update: The change of its weights; see `weight_changes`.
        labels: The label of each record, known or inferred.
        shape: The shape of the inputs of one record.
        image: The shape [channel, height, width] in which they are smooth; that of the inputs if None.
        search: The settings.
        seed: Draws the noise that restarts begin with.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = next(model.parameters())
    losses, reconstructions = [], []
    with evaluating(model):
        for _ in range(search.restarts):
            start = torch.randn(len(labels), *shape, generator=generator).to(weight)
            inputs = descend_to_match(model, update, labels, start, image or shape, search)
            loss = matching_loss(model, update, labels, inputs.requires_grad_(), image or shape, search)
            losses.append(float(loss.detach()))
            reconstructions.append(inputs.detach())
    return Recovered(reconstructions[losses.index(min(losses))], tuple(losses))


def descend_to_match(
    model: nn.Module,
    update: Params,
    labels: Int[Tensor, " record"],
    start: Tensor,
    image: Sequence[int],
    search: Search,
) -> Tensor:
    """One restart: the inputs after its last step, within their range."""
    inputs = start.clamp(search.least, search.most).requires_grad_()
    optimizer = torch.optim.AdamW([inputs], search.lr)
    milestones = [search.iterations * part // 8 for part in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.5)
    for _ in range(search.iterations):
        loss = matching_loss(model, update, labels, inputs, image, search)
        (gradient,) = torch.autograd.grad(loss, [inputs])
        inputs.grad = gradient.sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            inputs.clamp_(search.least, search.most)
    return inputs.detach()


def matching_loss(
    model: nn.Module,
    update: Params,
    labels: Int[Tensor, " record"],
    inputs: Tensor,
    image: Sequence[int],
    search: Search,
) -> Float[Tensor, ""]:
    """The loss that the search minimises and compares restarts by."""
    labels = labels.to(inputs.device)
    gradient = loss_gradient(model, as_inputs(inputs, search.key), labels, keep_graph=True)
    loss = 1 - cosine(gradient, update)
    if not search.smoothness:  # inputs that are no images have no total variation
        return loss
    return loss + search.smoothness * total_variation(inputs.view(len(inputs), *image))


def as_inputs(inputs: Tensor, key: str | None) -> Inputs:
    """The one input of a model, by its keyword or by position."""
    return (inputs,) if key is None else {key: inputs}


def total_variation(images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, ""]:
    """The mean absolute difference of neighbours, down and across."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def is_nearest(
    recovered: Float[Tensor, "reconstruction ..."], record: Tensor, decoys: Float[Tensor, "decoy ..."]
) -> bool:
    """Whether the record is strictly nearer to a reconstruction than every decoy is to any of them.

    Args:
        recovered: The reconstructions of its class.
        record: The inputs of the deleted record.
        decoys: Other records of its class that were not deleted.
    """
    candidates = torch.cat([record[None], decoys]).flatten(1)
    nearest = torch.cdist(candidates, recovered.flatten(1).to(candidates)).min(1).values
    return bool(nearest[0] < nearest[1:].min())

"""Gaussian canaries: does a model still know noise that was planted on its inputs?

"Machine Unlearning Fails to Remove Data Poisoning Attacks" (Pawelczyk et al., 2024),
https://arxiv.org/abs/2406.17216: noise xi ~ N(0, sigma^2 I) is added to the inputs of the forget set before
training. For each canary

    I = <xi, grad_x loss(theta; x, y)> / (sigma |grad_x loss(theta; x, y)|)

at the clean input x, whose distribution is N(0, 1) for a model that is independent of xi, and whose mean is
below 0 for one that fitted the canary. The score here is -I. The figures are its mean, and how well it tells
the planted noise from fresh noise: the AUC, and the true-positive rate at a fixed false-positive rate.

The control: the mean of originals is above 0, beyond its interval, and that of models retrained without any
canary is within three standard errors of 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor, nn
from torch.nn import functional

from unweave.audits.attack import Attack, Check
from unweave.audits.planted_evidence import (
    Figures,
    PlantedReport,
    check_control,
    compare_figures,
    interval_of,
    stack_figures,
)
from unweave.audits.rates import placements, tpr_at_fpr
from unweave.tasks import evaluating

__all__ = ["CanaryScores", "canaries", "canary_scores", "input_gradients"]

MEAN, AUC = "mean", "auc"
FPR = 0.01
FRESH = 20
"""The draws of fresh noise for each canary."""
BATCH = 512
STANDARD_ERRORS = 3
CANNOT = (
    "Anything about data without planted noise, nor that noise is gone which this statistic does not see; it "
    "needs canaries that are planted before training and that harm the data a little."
)

PerCanary = Float64[np.ndarray, " canary"]


@dataclass(frozen=True)
class CanaryScores:
    """The scores of one model; larger where a gradient points more against the noise.

    Args:
        planted: The score of each canary with its own noise [canary].
        fresh: Scores with fresh noise [draw].
    """

    planted: PerCanary
    fresh: Float64[np.ndarray, " draw"]


def input_gradients(
    model: nn.Module, inputs: Tensor, labels: Int[Tensor, " canary"], *, batch: int = BATCH
) -> Tensor:
    """The gradient of the loss of each example by its input, in eval mode, on the CPU [canary, ...]."""
    rows, device = [], next(model.parameters()).device
    with evaluating(model):
        for x, y in zip(inputs.split(batch), labels.split(batch), strict=True):
            x = x.to(device).requires_grad_()
            loss = functional.cross_entropy(model(x), y.to(device), reduction="sum")
            rows.append(torch.autograd.grad(loss, [x])[0].cpu())
    return torch.cat(rows)


def canary_scores(
    gradients: Tensor, noise: Tensor, sigma: float, *, fresh: int = FRESH, seed: int = 0
) -> CanaryScores:
    """The scores of one model.

    Args:
        gradients: The gradient of the loss by each clean input [canary, ...]; see `input_gradients`.
        noise: The noise that was planted on each [canary, ...].
        sigma: Its standard deviation.
        fresh: The draws of fresh noise for each canary.
        seed: Draws the fresh noise.

    Raises:
        ValueError: If the shapes differ, sigma is not positive, or a gradient is not finite.
    """
    if gradients.shape != noise.shape or not len(noise):
        shapes = f"{list(gradients.shape)} and {list(noise.shape)}"
        raise ValueError(f"expected a gradient and the noise of each canary, found shapes {shapes}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, found {sigma}")
    if not bool(gradients.isfinite().all()):
        raise ValueError("canaries need finite gradients, found NaN or infinity")
    directions = gradients.flatten(1).double()
    # a gradient of zero says nothing: its score is 0
    directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-300)
    planted_scores = -(directions * noise.flatten(1).double()).sum(1) / sigma
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(directions.shape, generator=generator, dtype=torch.float64) for _ in range(fresh)]
    fresh_scores = torch.cat([-(directions * each).sum(1) for each in draws])
    return CanaryScores(planted_scores.numpy(), fresh_scores.numpy())


def canaries(
    unlearned: Sequence[CanaryScores],
    *,
    original: Sequence[CanaryScores],
    retrained: Sequence[CanaryScores],
    unplanted: Sequence[CanaryScores],
    fpr: float = FPR,
) -> PlantedReport:
    """How far models still know the noise of canaries.

    Args:
        unlearned: The scores of models after unlearning; one or more.
        original: Those of models trained on the canaries.
        retrained: Those of models retrained without the canaries of the forget set.
        unplanted: Those of models retrained without any canary.
        fpr: The share of fresh noise that may be taken for planted.

    Raises:
        ValueError: If a kind has no model, models have other numbers of canaries, or fresh noise is too
            little for the rate.
    """
    kinds = [figures(each, fpr) for each in (unlearned, original, retrained, unplanted)]
    return PlantedReport(compare_figures(*kinds, cannot=CANNOT), check_canaries(kinds[1], kinds[3]))


def figures(models: Sequence[CanaryScores], fpr: float) -> Figures:
    """For each model and canary the score, the share of fresh noise below it, and whether it is found."""
    if not models:
        raise ValueError("canaries are measured on at least one model of each kind, found none")
    thresholds = [tpr_at_fpr(each.planted, each.fresh, fpr)[0] for each in models]
    detections = [each.planted > threshold for each, threshold in zip(models, thresholds, strict=True)]
    rows = {
        MEAN: [each.planted for each in models],
        AUC: [placements(each.planted, each.fresh) for each in models],
        f"tpr at {fpr:.0%} fpr": detections,
    }
    return stack_figures(rows)


def check_canaries(original: Figures, unplanted: Figures) -> Check:
    """Whether originals know the noise, and models that never saw it do not."""
    original_mean, unplanted_mean = interval_of(original[MEAN]), float(unplanted[MEAN].mean())
    error = 1 / unplanted[MEAN].shape[1] ** 0.5  # of one model: all share the canaries
    outcome = (
        f"the mean score is {original_mean.value:.2f} for originals and {unplanted_mean:.2f} for models "
        f"retrained without any canary, with a standard error of {error:.2f}"
    )
    return check_control(original_mean.low > 0 and abs(unplanted_mean) < STANDARD_ERRORS * error, outcome)


ATTACK = Attack(
    name="canaries",
    paper="Pawelczyk et al., 2024, arXiv 2406.17216",
    evidence="a model trained on planted noise, the noise, and models retrained without it",
    tier=1,
    fewest=1,
    function_cost="one training on canaries and one retraining for each seed, and a gradient per canary",
    says="How well gradients at the clean inputs tell the noise that was planted on them from fresh noise.",
    cannot=CANNOT,
    function="unweave.audits.attacks.canaries.canaries",
)

"""Masked small gradients, MSG, a winner of the NeurIPS 2023 unlearning competition.

It wins again in Deep Unlearn (Cadet et al., 2024). The definition is that of the benchmark,
https://arxiv.org/abs/2410.01276; the entry itself has no paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.importance import Importance, Mask, accumulate, gradients
from unweave.descent.objective import nll
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Range, Uniform, up_to
from unweave.split import Part
from unweave.weights.params import add, scale

__all__ = ["MaskedSmallGradients"]


@dataclass(frozen=True)
class MaskedSmallGradients:
    """Redraws the weights whose retain and forget gradients differ least; fine-tunes the others slowly.

    Args:
        rate: The fraction of each kernel or matrix to redraw.
        kept: The factor of the gradients of the other weights of these kernels and matrices.
        how: The fine-tuning.
    """

    about: ClassVar[About] = About(
        "Cadet et al., 2024, arXiv 2410.01276 (competition entry)",
        "forget, retain",
        "1 gradient; 2 passes of the size of forget",
        "`lr=0.01` (released: `lr=0.001`), `batch=128` (released: `batch=64`), `weight_decay=0.0` (released: "
        "`weight_decay=0.0005`); the learning rate changes at every step, not every epoch; every "
        "weight-bearing module, not convolutions alone; matrices are redrawn by fan-in; the gradients are "
        "taken in evaluation mode",
        edits="redraws weights",
    )
    rate: float = 0.3
    kept: float = 0.1
    how: Descent = Descent(lr=0.01, epochs=5, schedule="linear", warmup=0.5)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "rate", "kept")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget),
            "rate": Uniform(0.05, 0.95),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If no matrix or kernel is trainable, or the model is sharded.
        """
        if problem.processes.sharded:
            raise ValueError(
                "msg ranks the weights of each matrix, and each process holds a piece of a sharded one: use "
                "another method"
            )
        masks = mask_smallest(contrast(problem), self.rate, problem)
        if not masks:
            raise ValueError(
                "msg redraws matrices and kernels, and none of this model's is trainable: use another method"
            )
        multipliers = {name: torch.ones_like(p) for name, p in problem.params.items()}
        with torch.no_grad():
            for name, mask in masks.items():
                p = problem.params[name]
                p.copy_(torch.where(mask.bool(), kaiming(p, problem.generator), p))
                multipliers[name] = mask + self.kept * (1 - mask)
        descend(problem, self.how, Phase([nll("retain")], where=multipliers))


def contrast(problem: Problem) -> Importance:
    r""":math:`|g_r - g_f|`, mean gradients over the forget data and over as many batches of retain data."""
    batch = min(128, len(problem.split.forget))
    return {
        name: g.abs()
        for name, g in add(
            mean_gradient(problem, "retain", batch), mean_gradient(problem, "forget", batch), scale=-1
        ).items()
    }


def mean_gradient(problem: Problem, part: Part, batch: int) -> Importance:
    """The mean gradient over as many batches as the forget set has."""
    batches = ceil(len(problem.split.forget) / batch)
    total, count = accumulate(gradients(problem, nll(part), batch=batch, batches=batches), lambda g: g)
    return scale(total, 1 / count)


def mask_smallest(scores: Importance, rate: float, problem: Problem) -> Mask:
    """The mask of the fraction `rate` with the smallest scores, in each trainable kernel or matrix."""
    heavy = {id(p) for _, m in problem.blocks for p in m.parameters(recurse=False) if p.ndim > 1}
    masks = {}
    for name, p in problem.params.items():
        if id(p) in heavy:
            mask = torch.zeros_like(scores[name]).flatten()
            mask[scores[name].flatten().topk(round(rate * p.numel()), largest=False).indices] = 1
            masks[name] = mask.view_as(p)
    return masks


def kaiming(p: Tensor, generator: torch.Generator) -> Tensor:
    r"""Fresh values :math:`\sim N(0, 2 / \mathrm{fan})`: a kernel's fan-out (released), a matrix's fan-in."""
    fan = p[:, 0].numel() if p.ndim > 2 else p.shape[1]
    return torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device) * (2 / fan) ** 0.5

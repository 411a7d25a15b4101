"""Convolution transpose, CT, a winner of the NeurIPS 2023 unlearning competition.

It wins again in Deep Unlearn (Cadet et al., 2024). The definition is that of the benchmark,
https://arxiv.org/abs/2410.01276; the entry itself has no paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, Range, up_to

__all__ = ["ConvolutionTranspose"]


@dataclass(frozen=True)
class ConvolutionTranspose:
    """Transposes every square convolution kernel, height with width, and fine-tunes.

    Args:
        how: The fine-tuning.
    """

    about: ClassVar[About] = About(
        "Cadet et al., 2024, arXiv 2410.01276 (competition entry)",
        "retain",
        "1 gradient",
        "`lr=0.01` (released: `lr=0.001`), `batch=128` (released: `batch=64`); the learning rate falls at "
        "every step, not every epoch; kernels that are not square are unchanged",
        edits="transposes kernels",
    )
    how: Descent = Descent(lr=0.01, epochs=3, schedule="cosine", weight_decay=5e-4)

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"how.lr": RATES, "how.steps": up_to(budget)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If no kernel would change.
        """
        kernels = {
            id(m.weight): m.weight
            for m in problem.model.modules()
            if isinstance(m, nn.Conv2d) and is_transposable(m)
        }
        if not kernels:
            raise ValueError(
                "ct transposes trainable square convolution kernels, and this model has none: "
                "use another method"
            )
        with torch.no_grad():
            for kernel in kernels.values():  # once each: a shared kernel transposed twice would be unchanged
                kernel.copy_(kernel.transpose(-1, -2).clone())
        descend(problem, self.how, Phase([nll("retain")]))


def is_transposable(module: nn.Conv2d) -> bool:
    """Whether the kernel is trainable, and transposing changes it and keeps its shape."""
    height, width = module.kernel_size
    return module.weight.requires_grad and height == width > 1

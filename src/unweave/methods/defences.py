"""Defences against the inversion of an update: they hide the change of weights that a deletion makes.

Hu et al. (S&P 2024), https://arxiv.org/abs/2404.03233, name three, each at a cost in utility: noise on the
weights, pruning, and fine-tuning (here the stage `recover`). Each is the last stage of a pipeline, such as
`neggrad+:obfuscate`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from unweave.choices import refuse_outside
from unweave.descent.edit import perturb
from unweave.descent.importance import top
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import Log, Range, Uniform

__all__ = ["Obfuscate", "Prune"]

PAPER = "Hu et al., S&P 2024, arXiv 2404.03233"


@dataclass(frozen=True)
class Obfuscate:
    """Adds Gaussian noise to the weights.

    Args:
        noise: The standard deviation, relative to the root mean square of each weight tensor.
    """

    about: ClassVar[About] = About(
        PAPER,
        "none",
        "no steps",
        "a defence, for pipelines; noise relative to each weight tensor is ours",
        edits="adds noise to the weights",
    )
    noise: float = 0.03

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "noise")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"noise": Log(0.003, 0.3)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        with torch.no_grad():
            sizes = {name: p.square().mean().sqrt() for name, p in problem.params.items()}
        perturb(problem, {name: self.noise * size for name, size in sizes.items()})


@dataclass(frozen=True)
class Prune:
    """Sets the smallest weights of matrices and kernels to zero, ranked across the whole model.

    Args:
        fraction: The fraction of these weights that is set to zero.
    """

    about: ClassVar[About] = About(
        PAPER, "none", "no steps", "a defence, for pipelines", edits="sets weights to zero"
    )
    fraction: float = 0.3

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "fraction")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"fraction": Uniform(0.1, 0.9)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If no matrix or kernel is trainable.
        """
        matrices = {name: p for name, p in problem.params.items() if p.ndim >= 2}
        if not matrices:
            raise ValueError(
                "prune needs a trainable matrix or kernel, found none: set requires_grad, or leave prune out"
            )
        mask = top({name: p.detach().abs() for name, p in matrices.items()}, 1 - self.fraction)
        with torch.no_grad():
            for name, p in matrices.items():
                p.mul_(mask[name])

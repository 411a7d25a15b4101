"""PRMQ, a winner of the NeurIPS 2023 unlearning competition: pruned, redrawn, matched in entropy, rounded.

The definition is that of Deep Unlearn (Cadet et al., 2024), https://arxiv.org/abs/2410.01276, and of its
released code; the entry itself has no paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import quantize, reinitialize
from unweave.descent.importance import Mask, top
from unweave.descent.objective import Objective, on, reference, refuse_trainable
from unweave.descent.redraw import eligible_weights
from unweave.methods.about import About, refuse_family
from unweave.methods.cfw import balanced_loss
from unweave.problem import Problem
from unweave.space import RATES, Choice, Range, Uniform, up_to
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.step import Step

__all__ = ["PRMQ"]


@dataclass(frozen=True)
class PRMQ:
    r"""Redraws all but the largest weights, fine-tunes towards the original's entropies, rounds to half.

    The objective on retain data is the weighted loss plus :math:`(H(p) - H(p_0))^2`, with H the entropy, in
    nats, of the outputs of the model and the original on an example.

    Args:
        prune: The fraction of weights to redraw: the smallest ones of the whole model.
        power: The weight of an example is the number of retain examples of its class, to minus this power.
        how: The fine-tuning.
    """

    about: ClassVar[About] = About(
        "Cadet et al., 2024, arXiv 2410.01276 (competition entry)",
        "retain",
        "1 gradient; 1 forward pass of the original",
        "every weight-bearing module, not convolutions and linear layers alone; the weights of the classes "
        "have mean one over the retain data, not over a batch; buffers and frozen weights are not rounded",
        families=("classifier",),
        edits="redraws and rounds weights",
    )
    prune: float = 0.99
    power: float = 0.1
    how: Descent = Descent(lr=5e-4, epochs=3.2, batch=64, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "prune")
        refuse_outside(self, "[0, inf)", "power")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget),
            "how.schedule": Choice(("constant", "cosine")),
            "prune": Uniform(0.05, 0.99),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If no weight-bearing module is trainable.
            Failed: If a weight is too large to be rounded.
        """
        refuse_family(self, problem.task)
        original = problem.original
        reinitialize(problem, mask_smallest(problem, self.prune))
        fit = balanced_loss(problem, power=self.power) + entropy_gap(original, "retain")
        descend(problem, self.how, Phase([fit]))
        quantize(problem, torch.float16)


def mask_smallest(problem: Problem, fraction: float) -> Mask:
    """The mask of the fraction of smallest weights and biases in `problem.blocks`, by absolute value."""
    params, names = problem.params, eligible_weights(problem, "")
    masks = top({name: -params[name].detach().abs() for name in names}, fraction)
    return {name: masks[name] if name in masks else torch.zeros_like(p) for name, p in params.items()}


def entropy_gap(original: nn.Module, part: Part) -> Objective:
    """The squared difference of the entropies, in nats, of the outputs of the model and the original."""
    refuse_trainable(original)

    def value(step: Step, batch: Batch) -> Tensor:
        original_entropy = step.once(
            ("entropy", id(original), id(batch)), lambda: entropy(reference(original, batch))
        )
        return (entropy(step.predict(batch)) - original_entropy).square()

    return on(part, "entropy gap", value)


def entropy(logits: Float[Tensor, "batch class"]) -> Float[Tensor, " batch"]:
    """The entropy of the softmax, in nats."""
    log_p = logits.log_softmax(-1)  # torch.special.entr has no finite slope where p is zero
    return -(log_p.exp() * log_p).sum(-1)

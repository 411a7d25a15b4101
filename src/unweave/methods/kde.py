"""KDE, a winner of the NeurIPS 2023 unlearning competition: the first and the last layer are relearned.

The definition is that of Deep Unlearn (Cadet et al., 2024), https://arxiv.org/abs/2410.01276, and of its
released code; the entry itself has no paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import renew
from unweave.descent.objective import Objective, nll
from unweave.methods.about import About, refuse_family
from unweave.methods.scrub import softened_divergence
from unweave.problem import Problem
from unweave.space import RATES, Range, Uniform, up_to
from unweave.split import Part

__all__ = ["KDE"]


@dataclass(frozen=True)
class KDE:
    r"""Redraws the first layer and the head, learns from the original on held-out data, then on retain data.

    With :math:`d = KL(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T))` of original and model it
    minimises :math:`d` on the calibration set, and then :math:`\ell + d + c` on the retain set, where
    :math:`c` is the cross-entropy of the same two distributions: :math:`d` and a constant.

    It learns the original's outputs on the calibration set, from which membership attacks take their
    non-members. Non-members then look more like members, and an attack can underestimate the
    leak of this model.

    Args:
        temperature: The divisor of the logits of both.
        taught: The descent on the calibration set.
        how: The descent on the retain set.
    """

    about: ClassVar[About] = About(
        "Cadet et al., 2024, arXiv 2410.01276 (competition entry)",
        "retain; calibration, without labels",
        "1 gradient; 1 forward pass of the original",
        "the first weight-bearing module and the head are found by position, not by name; the cross-entropy "
        "to the original's answers is written as a second divergence, which has the same gradient; the "
        "learning rate falls at every step",
        families=("classifier",),
        edits="redraws layers",
    )
    temperature: float = 5.0
    taught: Descent = Descent(lr=9e-4, epochs=3, batch=64, weight_decay=5e-4)
    how: Descent = Descent(lr=1e-3, epochs=3, batch=64, schedule="cosine", weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "temperature")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; at most a quarter of the budget is for the calibration set."""
        taught_steps = max(1, budget // 4)
        return {
            "taught.lr": RATES,
            "taught.steps": up_to(taught_steps),
            "how.lr": RATES,
            "how.steps": up_to(budget - taught_steps),
            "temperature": Uniform(1.0, 5.0),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If the first layer or the head is frozen, or shared with another module.
        """
        refuse_family(self, problem.task)
        original, (_, first), (_, head) = problem.original, problem.blocks[0], problem.head
        renew(problem, [first] if first is head else [first, head])
        descend(problem, self.taught, Phase([divergence(original, "calibration", self.temperature)]))
        lesson = nll("retain") + 2.0 * divergence(original, "retain", self.temperature)
        descend(problem, self.how, Phase([lesson]))


def divergence(original: nn.Module, part: Part, temperature: float) -> Objective:
    """The divergence of the softened outputs, without SCRUB's factor of the squared temperature."""
    return temperature**-2 * softened_divergence(original, part, temperature)

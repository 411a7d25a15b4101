"""FCS, a winner of the NeurIPS 2023 unlearning competition: forget, contrast and repair, in rounds.

The definition is that of Deep Unlearn (Cadet et al., 2024), https://arxiv.org/abs/2410.01276, and of its
released code; the entry itself has no paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

import torch
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import Objective, nll, on, uniform
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import RATES, Log, Range, Uniform, up_to
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.params import Params
from unweave.weights.step import Step

__all__ = ["FCS"]


@dataclass(frozen=True)
class FCS:
    r"""Pushes outputs on the forget set to uniform; then alternates contrast with retain data and repair.

    A round is a pass over the contrast of forget and retain data, then a pass over the retain loss. The
    contrast fades from round to round, along half a cosine.

    One momentum serves all passes, where the released code keeps one for each of three optimizers. Without
    momentum both are the same; with it they end apart. All our figures are of this variant.

    Args:
        push: The weight of the first pass, to the uniform distribution.
        contrast: The weight of the contrast in the first round.
        temperature: The divisor of the inner products of the contrast.
        rounds: The number of rounds.
        repair: The length of a pass over retain data, as a multiple of the other passes.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Cadet et al., 2024, arXiv 2410.01276 (competition entry)",
        "forget, retain",
        "1 gradient; 1 forward pass over retain in the contrast",
        "one optimizer for all three, with the ratios of their learning rates as weights, and the repair's "
        "weight decay and one momentum for all, so the result differs from the released three; the contrast "
        "fades by rounds, not by steps",
        families=("classifier",),
    )
    push: float = 1.25
    contrast: float = 0.075
    temperature: float = 1.15
    rounds: int = 8
    repair: float = 1.0
    how: Descent = Descent(lr=4e-3, epochs=17, batch=256, weight_decay=1e-2)

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "push", "contrast", "temperature", "repair")
        refuse_outside(self, "[1, inf)", "rounds")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; enough steps for each pass to have one."""
        shortest = 1 + self.rounds * (1 + 8)
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget, least=shortest),
            "push": Log(0.1, 10.0),
            "contrast": Log(0.01, 1.0),
            "repair": Uniform(1.0, 8.0),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If several processes share the work.
        """
        refuse_family(self, problem.task)
        if problem.processes.count > 1:
            raise ValueError(
                "fcs contrasts each forget example with a whole batch of retain data, and several processes "
                f"would see a shard of it, found {problem.processes.count}: use one process"
            )
        phases = [Phase([self.push * uniform("forget")])]
        for number in range(self.rounds):
            fading = self.contrast * (1 + cos(pi * number / self.rounds)) / 2
            phases += [
                Phase([Contrast(fading, self.temperature)], feed="shortest"),
                Phase([nll("retain")], share=self.repair),
            ]
        descend(problem, self.how, *phases)


class Contrast:
    r"""For each forget example, :math:`-\frac{1}{m} \sum_j \log \mathrm{softmax}_j(f \cdot r_j / T)`.

    Its logits are f, and the :math:`r_j` are the logits of the m retain examples of the step, as constants.
    It is smallest if an example is equally near to all of them.

    Args:
        weight: The weight of the contrast.
        temperature: T.
    """

    def __init__(self, weight: float, temperature: float) -> None:
        def value(step: Step, batch: Batch) -> Tensor:
            similarity = step.predict(batch) @ retain_logits(step).T / temperature
            return -similarity.log_softmax(-1).mean(-1)

        self.objective: Objective = weight * on("forget", "contrast", value)

    @property
    def parts(self) -> frozenset[Part]:
        """The forget set and the retain set."""
        return frozenset({"forget", "retain"})

    def present(self, step: Step) -> bool:
        """Whether the step has data of both sets."""
        return self.parts <= step.batches.keys()

    def gradient(self, step: Step) -> Params:
        """The gradient of the weighted contrast."""
        return step.gradient(self.objective)

    def memory(self) -> None:
        """Nothing: each step stands alone."""

    def recall(self, memory: object) -> None:
        """Nothing."""


@torch.no_grad()
def retain_logits(step: Step) -> Tensor:
    """The logits of all retain examples of the step, in the mode of the descent."""
    return torch.cat([step.predict(batch) for batch in step.batches["retain"]])

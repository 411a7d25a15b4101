"""SFR-on (Huang et al., NeurIPS 2024), https://arxiv.org/abs/2409.19732."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend, phase_lengths
from unweave.descent.importance import Mask, fisher, ratio
from unweave.descent.objective import nll, on
from unweave.errors import Failed
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Log, Range, up_to
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.params import Params, combine
from unweave.weights.sharded import names_where, not_finite
from unweave.weights.step import Step

__all__ = ["SFRon"]

SMALLEST = 1e-6
"""Smaller losses count as this one, in nats: losses of memorised examples are zero in float32."""


@dataclass(frozen=True)
class SFRon:
    r"""Trains on the retain set, and every few steps first ascends the loss of the forget set.

    The ascent step maximises :math:`c_t \sum_i w_i \ell_i` with :math:`w_i \propto \ell_i^{-\lambda}`, which
    gives little weight to examples already forgotten, and changes only weights that matter more to the forget
    set than to the retain set. Retain gradients are taken after it, so the retain curvature corrects it
    without a second derivative.

    Args:
        strength: The factor c at the start; it falls to zero along half a cosine.
        power: The exponent lambda.
        threshold: The smallest ratio of the Fisher information of the forget set to that of the retain set
            for a weight to be changed.
        every: The number of retain steps for each ascent step.
        clip: The largest norm of the gradient of an ascent step.
        how: The descent; its `max_norm` clips retain steps only.
    """

    about: ClassVar[About] = About(
        "Huang et al., NeurIPS 2024, arXiv 2409.19732",
        "forget, retain",
        "1 gradient, 1 more at every fifth step; 1 pass over forget and 1 over retain for the mask",
        "the two kinds of steps have an optimizer each, so that neither momentum nor weight decay moves a "
        "masked weight in a step away; no slow average of the weights, which the released code computes with "
        "no effect; both Fisher informations are taken in batches of one size, without augmentation; a step "
        "away draws its batch anew",
        families=("classifier", "diffusion", "text-to-image"),
    )
    unsaved_state: ClassVar[str] = "a second optimizer"
    strength: float = 25.0
    power: float = 0.5
    threshold: float = 1.0
    every: int = 5
    clip: float = 7.0
    how: Descent = Descent(lr=0.01, steps=1500, schedule="cosine", weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "strength", "threshold")
        refuse_outside(self, "[0, 1]", "power")
        refuse_outside(self, "[1, inf)", "every")
        refuse_outside(self, "(0, inf]", "clip")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; the two passes for the mask come on top."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget * self.every // (self.every + 1), share=8),
            "strength": Log(0.3, 50.0),
            "threshold": Log(0.3, 30.0),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If no weight matters enough more to the forget set than to the retain set.
            Failed: If a Fisher information is not finite.
        """
        refuse_family(self, problem.task)
        mask, recover = self.mask(problem), Phase([nll("retain")])
        (steps,) = phase_lengths(problem, [recover], self.how)
        away = replace(self.how, max_norm=self.clip, weight_decay=0.0, ema=None)
        leave = PeriodicAscent(self, mask, away.optimizer_over(list(problem.params.values())), away, steps)
        descend(problem, self.how, replace(recover, watch=leave))

    def mask(self, problem: Problem) -> Mask:
        """The mask of weights that matter enough more to the forget set than to the retain set."""
        examples = len(problem.split.forget)
        size = math.ceil(examples / math.ceil(examples / self.how.batch))
        matters = ratio(*(fisher(problem, nll(part), batch=size) for part in ("forget", "retain")))
        if names_where(matters, not_finite):
            raise Failed("a Fisher information is no longer finite: the model or its loss is not")
        mask = {name: (r >= self.threshold).to(r) for name, r in matters.items()}
        if not names_where(mask, Tensor.bool):
            raise ValueError(
                f"no weight matters {self.threshold:g} times as much to forget as to retain data: lower "
                "threshold"
            )
        return mask


@dataclass
class PeriodicAscent:
    """Takes an ascent step on the forget set before every few steps of a descent.

    Args:
        method: The settings.
        mask: The weights that it changes.
        update: Its optimizer, which keeps momentum from one ascent step to the next.
        how: The descent of one step.
        of: The number of steps of the descent around it.
    """

    method: SFRon
    mask: Mask
    update: torch.optim.Optimizer
    how: Descent
    of: int

    def __call__(self, problem: Problem, index: int) -> None:
        """Takes a step if it is due; charges the problem."""
        if index % self.method.every:
            return
        progress = index / self.of
        strength = self.method.strength * (1 + math.cos(math.pi * progress)) / 2
        rate = self.how.lr * self.how.rate(progress)
        for group in self.update.param_groups:
            group["initial_lr"] = rate
        one = replace(self.how, steps=1, epochs=None, schedule="constant", warmup=0.0)
        climb = Phase([WeightedAscent(strength, self.method.power)], where=self.mask, idle=True)
        descend(replace(problem, watch=None), one, climb, optimizer=lambda weights: self.update)


@dataclass(frozen=True, eq=False)
class WeightedAscent:
    r"""Maximises :math:`c \sum_i w_i \ell_i` with constants :math:`w_i \propto \ell_i^{-\lambda}` of sum one.

    Args:
        strength: The factor c.
        power: The exponent lambda.
    """

    strength: float
    power: float

    @property
    def parts(self) -> frozenset[Part]:
        """The forget set."""
        return frozenset({"forget"})

    def present(self, step: Step) -> bool:
        """Whether the step has forget data."""
        return "forget" in step.batches

    def gradient(self, step: Step) -> Params:
        """The gradient; the weights sum to one over all micro-batches and processes."""
        sums: list[Tensor] = []

        def value(step: Step, batch: Batch) -> Tensor:
            losses = step.runtime.task.loss(step.predict(batch), batch.target)
            weights = losses.detach().clamp(min=SMALLEST) ** -self.power
            sums.append(weights.sum())
            return weights * losses

        gradient = step.gradient(on("forget", "unlearnt", value))
        return combine([gradient], (-self.strength * step.sizes["forget"] / step.total(sums))[None])

"""EraseDiff (Wu et al., CVPR 2025), https://arxiv.org/abs/2401.05779."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend, phase_lengths
from unweave.descent.objective import Objective, nll, on
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import Log, Range, up_to
from unweave.split import Part
from unweave.targets import Mislabel, Target
from unweave.tasks import Batch, require_task
from unweave.tasks.diffusion import Diffusion
from unweave.weights.params import Params, combine, dot, norm
from unweave.weights.sharded_model import refuse_copy
from unweave.weights.step import Step, Term

__all__ = ["EraseDiff"]


@dataclass(frozen=True)
class EraseDiff:
    r"""Minimises the retain loss where the forget loss is near the minimum that a few passes can reach.

    The bilevel problem :math:`\min L_r(\theta)` over the minimisers of :math:`L_f`, to first order by its
    value function: minimises :math:`L_r + \lambda\, (L_f(\theta) - \ell^*)`. The forget loss is the distance
    to the output under another class.

    Args:
        weight: The weight lambda; None takes max(0, eta - cos(g_r, g_f)) at every step.
        eta: See `weight`.
        outer: The number of searches for the least forget loss, at equal distances.
        passes: The passes of a search over the forget set, from the present weights. To first order the least
            loss has no gradient, so the result depends on neither `outer` nor `passes`; they only give the
            curve "gap(forget)". With 0 there is no search, the least loss counts as zero, and its cost is
            saved.
        forget: The forget loss.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Wu et al., CVPR 2025, arXiv 2401.05779",
        "forget, retain",
        "2 gradients; passes over forget for the value function",
        "the original answers for another class, not the model that is trained; that class is drawn for each "
        "example, not each batch; one optimizer for all outer epochs, and a fresh one for each value "
        "function; a batch of both parts at every step",
        families=("diffusion", "text-to-image"),
    )

    weight: float | None = 0.1
    eta: float = 0.1
    outer: int = 4
    passes: int = 2
    forget: Target = Mislabel()
    how: Descent = Descent(lr=1e-4, epochs=4, optimizer="adam", ema=0.99)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "weight", "eta", "passes")
        refuse_outside(self, "[1, inf)", "outer")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; the cost of the value function comes on top."""
        return {
            "how.lr": Log(1e-5, 1e-3),
            "how.steps": up_to(budget // 2, share=5),
            "weight": Log(0.01, 3.0),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        require_task(problem.task, Diffusion, "denoisers")
        retain, forget = nll("retain"), self.forget(problem, self.how)
        (steps,) = phase_lengths(problem, [Phase([retain + forget])], self.how)
        tracker = LeastForgetLoss(forget, self.passes, self.how, every=math.ceil(steps / self.outer))
        gap = tracker.excess_loss()
        term: Term = (
            ConflictGradient(retain, gap, self.eta) if self.weight is None else retain + self.weight * gap
        )
        descend(problem, self.how, Phase([term], watch=tracker))


@dataclass
class LeastForgetLoss:
    """The mean forget loss that a few passes reach from the present weights: the value function.

    Args:
        forget: The forget loss.
        passes: The number of passes; with 0 the value stays zero.
        how: The descent of the passes, without its average.
        every: The number of steps between two searches.
    """

    forget: Objective
    passes: int
    how: Descent
    every: int
    value: float = field(default=0.0, init=False)
    """The result of the last search."""

    def __call__(self, problem: Problem, index: int) -> None:
        """Searches every `every` steps, on a copy of the model; charges the problem."""
        if self.passes and index % self.every == 0:
            refuse_copy(problem.model, "erasediff's search for the least loss")
            inner = replace(problem, model=copy.deepcopy(problem.model), curves={}, traces={}, watch=None)
            descend(inner, replace(self.how, steps=None, epochs=self.passes, ema=None), Phase([self.forget]))
            ((_, losses),) = inner.curves.items()
            self.value = sum(losses) / len(losses)
            problem.traces.setdefault("least forget loss", []).append((index, self.value, math.nan))

    def memory(self) -> float:
        """The result of the last search."""
        return self.value

    def recall(self, memory: float) -> None:
        """Restores it."""
        self.value = memory

    def excess_loss(self) -> Objective:
        """The forget loss above its least value; its gradient is that of the forget loss."""
        ((_, loss),) = self.forget.by_part["forget"]

        def value(step: Step, batch: Batch) -> Tensor:
            return loss.value(step, batch) - self.value

        return on("forget", "gap", value)


@dataclass(frozen=True, eq=False)
class ConflictGradient:
    r"""Follows :math:`g_r + \max(0, \eta - \cos(g_r, g_f))\, g_f`: more weight the more they disagree.

    Args:
        retain: The term whose gradient has weight one.
        forget: The other term.
        eta: The cosine above which the other term is left out.
    """

    retain: Term
    forget: Term
    eta: float

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that it needs."""
        return self.retain.parts | self.forget.parts

    def present(self, step: Step) -> bool:
        """Whether the step has data for both."""
        return self.retain.present(step) and self.forget.present(step)

    def gradient(self, step: Step) -> Params:
        """The weighted sum of both gradients."""
        g_r, g_f = step.gradient(self.retain), step.gradient(self.forget)
        sizes = norm(g_r) * norm(g_f)
        cosine = dot(g_r, g_f) / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)
        return combine([g_r, g_f], torch.stack([torch.ones_like(cosine), (self.eta - cosine).clamp(min=0)]))

"""What is measured at the start of a run, in the place of numbers that somebody would have to search."""

import math
from dataclasses import dataclass, field

import torch

from unweave.descend import Descent, Phase, batches_of, runtime_of, training
from unweave.importance import Mask, evaluating
from unweave.losses import mean_loss_at
from unweave.objective import Objective
from unweave.params import norm
from unweave.problem import Failed, Problem
from unweave.step import Step, Term

LESS = 0.02
"""By so much of itself a loss has to fall to count as lower."""

SMALLEST = torch.finfo(torch.float32).tiny
"""What stands for a loss of zero where something is relative to it."""

ROUNDING = 1e-6
"""A gradient that is so small beside another is none: that of a model's divergence from itself."""


def norms_of_gradients(
    problem: Problem, how: Descent, moving: Mask | None, retain: Objective, forget: Objective
) -> tuple[float, float]:
    """The norms of the two gradients at the present weights, on the first batches.

    Raises:
        ValueError: If one of them is zero, or as small beside the other as rounding.
    """
    with training(problem.model, how):
        step = first_step(problem, how, moving, retain, forget)
        step.runtime.noise = problem.seed() if how.dropout == "same" else None
        with step.runtime.statistics_kept():
            pull, push = (float(norm(step.gradient(each))) for each in (retain, forget))
    if min(pull, push) <= ROUNDING * max(pull, push):
        raise ValueError(
            f"weight_in='gradients' needs two gradients that are not zero, found norms {pull:g} (retain) "
            f"and {push:g} (forget): use weight_in='absolute'"
        )
    return pull, push


def first_step(problem: Problem, how: Descent, moving: Mask | None, *terms: Term) -> Step:
    """A step at the present weights, on the first batches; for training mode, whose norms it remembers."""
    batches, sizes = next(batches_of(problem, Phase(terms), how))
    return Step(problem.params, runtime_of(problem, how, moving), batches, sizes)


@dataclass
class Restored:
    """Whether a model is as good on retain data as the original was, or has stopped getting better.

    Args:
        loss: The mean loss, on what is looked at, that is good enough.
        batch: The number of examples in a forward pass.
        patience: So many looks without a loss that is lower by `LESS` are a standstill.
        seen: The losses at the looks so far.
    """

    loss: float
    batch: int
    patience: int
    seen: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, problem: Problem, how: Descent, near: float, patience: int) -> "Restored":
        """The question, while the model is still the original; so many times its loss will do."""
        return cls(near * cls.mean(problem, how.batch), how.batch, patience)

    def __call__(self, problem: Problem) -> bool:
        """Looks; whether it is either. The passes are charged as examples.

        The trace "restored" of the problem has the loss at every look, relative to what is good enough.
        """
        self.seen.append(self.mean(problem, self.batch))
        looks = problem.traces.setdefault("restored", [])
        looks.append((len(looks), self.seen[-1] / max(self.loss, SMALLEST), math.nan))
        return self.reached or self.stands

    @property
    def reached(self) -> bool:
        """Whether the model was as good at the last look."""
        return bool(self.seen) and self.seen[-1] <= self.loss

    @property
    def stands(self) -> bool:
        """Whether it has stopped getting better."""
        before, since = self.seen[: -self.patience], self.seen[-self.patience :]
        return bool(before) and min(since) > (1 - LESS) * min(before)

    @staticmethod
    @torch.no_grad()
    def mean(problem: Problem, batch: int, most: int = 1024) -> float:
        """The mean loss on at most so many retain examples, in evaluation mode; the same at every look.

        Raises:
            Failed: If it is not finite.
        """
        generator = torch.Generator().manual_seed(problem.generator.initial_seed())
        ids = problem.split.retain
        chosen = ids[torch.randperm(len(ids), generator=generator)[:most]]
        with evaluating(problem.model):
            loss = mean_loss_at(problem, problem.split.train, chosen, batch)
        if not math.isfinite(loss):
            raise Failed(f"the loss on retain data became {loss} in evaluation mode: no model can be so good")
        return loss

"""Recovery after forgetting: training on the retain set alone.

It has no forget loss: it is to repair the damage of forgetting.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import nn

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend, phase_lengths
from unweave.descent.losses import mean_loss_at
from unweave.descent.objective import nll
from unweave.errors import Failed
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, Choice, Range
from unweave.tasks import evaluating

__all__ = ["Recover", "Restored"]

AVERAGE = 0.95
"""The decay of the average whose loss is checked: at a constant rate the weights themselves move about."""

CHECKS = 5
"""Minimum number of checks before recovery can count as stalled."""

LESS = 0.02
"""A loss counts as lower if it has fallen by this fraction."""

SMALLEST = torch.finfo(torch.float32).tiny
"""Replaces a loss of zero as a divisor."""


@dataclass(frozen=True)
class Restored:
    """Ends a recovery once the model is as good on the retain set as the original.

    The average of the last weights (`how.ema`, 0.95 if None) is checked every `how.stop_every` steps and
    becomes the result. The learning rate stays constant until the loss has stalled for a pass over the retain
    data, and is then halved. The trace "restored" holds the loss at every check, relative to the aim.

    Args:
        near: The aim: a mean retain loss of at most `near` times the original's.
    """

    near: float = 1.0

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "near")


@dataclass(frozen=True)
class Recover:
    """Trains on the retain set alone.

    Args:
        until: The condition that ends the recovery early; none if None.
        budget: The number of gradient evaluations of the whole run, earlier stages included, at which
            recovery ends; if None, the length of `how` decides.
        how: The descent; with `until` its length is an upper limit.
    """

    about: ClassVar[About] = About("ours", "retain", "1 gradient", "a recovery, for pipelines")
    until: Restored | None = None
    budget: int | None = None
    how: Descent = Descent(lr=0.3, epochs=15, max_norm=1.0, schedule="cosine")

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "budget")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; recovery takes the rest of the budget."""
        return {
            "until": Choice((None,)),
            "budget": Choice((budget,)),
            "how.lr": RATES,
            "how.schedule": Choice(("cosine",)),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place; does nothing if the budget is spent."""
        retain, steps = Phase([nll("retain")]), self.steps(problem)
        if not steps:
            return
        how = replace(self.how, steps=steps, epochs=None)
        if self.until is None:
            descend(problem, how, retain)
        else:
            ema = AVERAGE if how.ema is None else how.ema
            steady_descent = replace(how, schedule="constant", warmup=0.0, ema=ema)
            descend_until(problem, steady_descent, retain, self.until)

    def steps(self, problem: Problem) -> int:
        """The largest number of steps."""
        if self.budget is not None:
            return max(0, self.budget - problem.cost.gradients)
        (steps,) = phase_lengths(problem, [Phase([nll("retain")])], self.how)
        return steps


def descend_until(problem: Problem, how: Descent, retain: Phase, aim: Restored) -> None:
    """Trains at a constant rate until the aim is reached; halves the rate whenever the loss stalls."""
    (a_pass,) = phase_lengths(problem, [retain], replace(how, steps=None, epochs=1.0))
    patience = max(CHECKS, round(a_pass / how.stop_every))
    threshold = aim.near * mean_retain_loss(problem, problem.original, how.batch)
    check, steps = Check(threshold, how.batch, patience), how.steps or 0
    while True:
        steps -= descend(problem, replace(how, steps=steps), replace(retain, until=check))
        if steps <= 0 or check.has_reached or not check.has_stalled:
            return
        check, how = Check(threshold, how.batch, patience), replace(how, lr=how.lr / 2)


@dataclass
class Check:
    """Checks whether the mean retain loss is low enough, or has stopped falling.

    Args:
        enough: The loss that is low enough.
        batch: The number of examples in a forward pass.
        patience: The number of checks without a decrease by `LESS` after which the loss has stalled.
        losses: The losses at the checks so far.
    """

    enough: float
    batch: int
    patience: int
    losses: list[float] = field(default_factory=list)

    def __call__(self, problem: Problem) -> bool:
        """Checks the loss; the passes are charged as examples."""
        self.losses.append(mean_retain_loss(problem, problem.model, self.batch))
        rows = problem.traces.setdefault("restored", [])
        rows.append((len(rows), self.losses[-1] / max(self.enough, SMALLEST), math.nan))
        return self.has_reached or self.has_stalled

    def memory(self) -> list[float]:
        """The losses so far."""
        return self.losses

    def recall(self, memory: list[float]) -> None:
        """Restores them."""
        self.losses = list(memory)

    @property
    def has_reached(self) -> bool:
        """Whether the loss was low enough at the last check."""
        return bool(self.losses) and self.losses[-1] <= self.enough

    @property
    def has_stalled(self) -> bool:
        """Whether the loss has stopped falling."""
        earlier_losses, recent_losses = self.losses[: -self.patience], self.losses[-self.patience :]
        return bool(earlier_losses) and min(recent_losses) > (1 - LESS) * min(earlier_losses)


@torch.no_grad()
def mean_retain_loss(problem: Problem, model: nn.Module, batch: int, most: int = 1024) -> float:
    """The mean loss of a model on at most `most` retain examples, always the same, in evaluation mode.

    Raises:
        Failed: If the loss is not finite.
    """
    generator = torch.Generator().manual_seed(problem.generator.initial_seed())
    ids = problem.split.retain
    examples = ids[torch.randperm(len(ids), generator=generator)[:most]]
    with evaluating(model):
        loss = mean_loss_at(problem, model, problem.split.train, examples, batch)
    if not math.isfinite(loss):
        raise Failed(f"the loss on retain data became {loss} in evaluation mode: no model can be that good")
    return loss

r"""A forget loss that knows where to end: at the loss of held-out data, rank by rank.

A model that never saw the forget data is to it what it is to held-out data. So a forget example of rank q
among the forget losses should end at the quantile q of the held-out losses, and ascent should leave it alone
from there on:

    -min(l, level(l)),    level = (quantile function of held-out losses) o (distribution of forget losses).

Both sides are losses of the model as it is, looked at anew every few steps: the level moves with it. It
pushes one way only. Where labels are noisier than those of the held-out data, the level asks for less than
a retrained model would show, and the steps on retain data that follow have to do the rest.

A class that is wholly forgotten is known to held-out data too. Its level is what the other classes' held-out
examples lose under its label: a class that is gone is as unlikely for its own examples as for theirs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, training_mode
from unweave.descent.objective import Objective, on
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.step import Runtime, Step

KNOWN = -1
"""Stands for all classes of which something is retained."""

Sides = tuple[Float[Tensor, " forget"], Float[Tensor, " held"]]
"""Losses of forget examples and of the held-out ones that stand for them, both in ascending order."""


@dataclass(frozen=True)
class Level:
    """Raises each forget loss to the held-out loss at its own rank, as the model is now.

    Args:
        refresh: The number of steps between two measurements of the losses that are compared.
    """

    refresh: int = 10

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "refresh")

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        level = HeldOutLevel(self.refresh, how)
        level.update(problem)
        return level.objective


@dataclass
class HeldOutLevel:
    """The held-out loss at a forget example's own rank, kept up to date by calls before each step.

    Args:
        every: The number of steps between two looks.
        how: The descent, in whose modes and precision the model is looked at, batch by batch.
        most: Examples looked at, at most, of each of the two parts; the same at every look.
        sides: What the last look found, by forgotten class, or `KNOWN`.
        labels: Those of the training examples, where the model is.
    """

    every: int
    how: Descent
    most: int = 1024
    sides: dict[int, Sides] = field(default_factory=dict, repr=False)
    labels: Int[Tensor, " n"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long), repr=False)

    def __call__(self, problem: Problem, index: int) -> None:
        """Looks, if it is time to. The passes are charged as examples."""
        if index % self.every == 0 and (index or not self.sides):
            self.update(problem)

    @torch.no_grad()
    def update(self, problem: Problem) -> None:
        """Takes the losses of both sides.

        Raises:
            ValueError: If every held-out example is of a class that is wholly forgotten.
        """
        gone = problem.split.forgotten_classes
        self.labels = problem.split.train.labels.to(problem.device)
        own, own_label = self.losses(problem, "forget")
        held, held_label = self.losses(problem, "calibration")
        kept = not_among(held_label, gone)
        if not bool(kept.any()):
            raise ValueError(
                "the target 'level' needs calibration examples of classes that are not wholly forgotten, "
                "found none"
            )
        known = not_among(own_label, gone)
        self.sides = (
            {KNOWN: (own[known].sort().values, held[kept].sort().values)} if bool(known.any()) else {}
        )
        for label in gone:
            other, _ = self.losses(problem, "calibration", under=label)
            self.sides[label] = own[own_label == label].sort().values, other[kept].sort().values

    def losses(
        self, problem: Problem, part: Part, *, under: int | None = None
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        """The losses and labels of a part, as in a step; under another label if one is given."""
        runtime = Runtime(
            problem.model, problem.task, self.how.precision, noise=0 if self.how.dropout == "same" else None
        )
        with training_mode(problem.model, self.how), runtime.keep_statistics():
            found = [self.loss(problem, runtime, batch) for batch in self.batches(problem, part, under)]
        source, _ = problem.split.part(part)
        labels = source.labels[self.sampled_positions(problem, part)].to(problem.device)
        return torch.cat(found), labels

    def loss(self, problem: Problem, runtime: Runtime, batch: Batch) -> Float[Tensor, " batch"]:
        """The losses of a batch."""
        return problem.task.loss(Step(problem.params, runtime, {}, {}).predict(batch), batch.target)

    def batches(self, problem: Problem, part: Part, under: int | None) -> Iterator[Batch]:
        """The examples that are looked at, drawn alike at every look; under another label if one is given."""
        source, _ = problem.split.part(part)
        generator = torch.Generator().manual_seed(problem.generator.initial_seed())
        for raw in source.stream(self.sampled_positions(problem, part).split(self.how.batch)):
            label = raw.target if under is None else torch.full_like(raw.target, under)
            yield problem.task.draw(replace(raw, target=label), generator)
            problem.cost.examples += len(raw.ids)

    def sampled_positions(self, problem: Problem, part: Part) -> Int[Tensor, " n"]:
        """Their positions."""
        _, ids = problem.split.part(part)
        generator = torch.Generator().manual_seed(problem.generator.initial_seed())
        return ids[torch.randperm(len(ids), generator=generator)[: self.most]]

    @property
    def objective(self) -> Objective:
        """Ascent that leaves an example alone once its loss has reached the level."""

        def value(step: Step, batch: Batch) -> Tensor:
            loss = step.runtime.task.loss(step.predict(batch), batch.target)
            level = self.level(loss.detach(), self.labels[batch.ids])
            return -torch.where(loss < level, loss, level)  # at a tie nothing pulls; a minimum would by half

        return on("forget", "level", value, idle=True, watch=self)

    def level(self, loss: Float[Tensor, " batch"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Where the losses of forget examples should end."""
        found = match_losses(loss, self.sides[KNOWN]) if KNOWN in self.sides else torch.empty_like(loss)
        for label, sides in self.sides.items():
            if label != KNOWN:
                found = torch.where(labels == label, match_losses(loss, sides), found)
        return found


def not_among(labels: Int[Tensor, " n"], gone: tuple[int, ...]) -> Tensor:
    """Which labels are not among those."""
    return ~torch.isin(labels, torch.tensor(gone, dtype=labels.dtype, device=labels.device))


def match_losses(loss: Float[Tensor, " batch"], sides: Sides) -> Float[Tensor, " batch"]:
    """The held-out loss at each loss's rank among those of the forget examples, between neighbours linear.

    Both ranks count the middles of their steps (Hazen), so that equal sides leave every loss where it is.
    """
    own, held = sides
    below, not_above = (torch.searchsorted(own, loss, right=right) for right in (False, True))
    place = ((below + not_above) / (2 * len(own)) * len(held) - 0.5).clamp(0, len(held) - 1)
    under = place.long()
    over = (under + 1).clamp(max=len(held) - 1)
    return held[under].lerp(held[over], (place - under).to(held.dtype))

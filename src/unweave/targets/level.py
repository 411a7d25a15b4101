r"""A forget loss that stops at the loss of held-out data, rank by rank.

For a model that never saw the forget set, that set is held-out data too. So a forget example of rank q among
the forget losses should end at quantile q of the held-out losses, and ascent should stop there:

    -min(l, level(l)),    level = (quantile function of held-out losses) o (distribution of forget losses).

Both distributions are losses of the present model, measured again every few steps. The level only ever raises
losses. If forget labels are noisier than held-out labels, the level is lower than a retrained model's loss,
and the later steps on the retain set must do the rest.

For a class that is forgotten whole, held-out examples of the class show nothing, since the model knows it.
Its level is the loss of the other classes' held-out examples under its label: a forgotten class should be as
unlikely for its own examples as for others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, training_mode
from unweave.descent.objective import Objective, on
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

__all__ = ["Level"]

RETAINED_CLASSES = -1
"""Key of all classes with retained examples."""

Sides = tuple[Float[Tensor, " forget"], Float[Tensor, " held"]]
"""Losses of forget examples and of the held-out examples to match, both in ascending order."""


@dataclass(frozen=True)
class Level:
    """Raises each forget loss to the present held-out loss at its rank.

    Args:
        refresh: The number of steps between two measurements of both losses.
    """

    unsaved_state: ClassVar[str] = "the target level"
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
    """The held-out loss at the rank of a forget example, updated by calls before each step.

    Args:
        every: The number of steps between two updates.
        how: The descent; losses are measured in its modes, precision and batch size.
        most: The largest number of examples of each part; the same ones at every update.
        sides: The losses of the last update, by forgotten class, or `RETAINED_CLASSES`.
        labels: The labels of the training examples, on the model's device.
    """

    every: int
    how: Descent
    most: int = 1024
    sides: dict[int, Sides] = field(default_factory=dict, repr=False)
    labels: Int[Tensor, " n"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long), repr=False)

    def __call__(self, problem: Problem, index: int) -> None:
        """Updates the level every `every` steps; the passes are charged as examples."""
        if index % self.every == 0 and (index or not self.sides):
            self.update(problem)

    @torch.no_grad()
    def update(self, problem: Problem) -> None:
        """Measures the losses of both parts.

        Raises:
            ValueError: If every held-out example is of a class that is forgotten whole.
        """
        classes = problem.split.forgotten_classes
        self.labels = problem.split.train.labels.to(problem.device)
        forget_losses, own_label = self.losses(problem, "forget")
        held_losses, held_label = self.losses(problem, "calibration")
        held_is_retained = is_outside(held_label, classes)
        if not bool(held_is_retained.any()):
            raise ValueError(
                "the target 'level' needs calibration examples of classes that are not wholly forgotten, "
                "found none"
            )
        forget_is_retained = is_outside(own_label, classes)
        self.sides = (
            {
                RETAINED_CLASSES: (
                    forget_losses[forget_is_retained].sort().values,
                    held_losses[held_is_retained].sort().values,
                )
            }
            if bool(forget_is_retained.any())
            else {}
        )
        for label in classes:
            label_losses, _ = self.losses(problem, "calibration", under=label)
            self.sides[label] = (
                forget_losses[own_label == label].sort().values,
                label_losses[held_is_retained].sort().values,
            )

    def losses(
        self, problem: Problem, part: Part, *, under: int | None = None
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        """The losses and labels of a part, as in a step; `under` replaces the labels."""
        runtime = Runtime(
            problem.model, problem.task, self.how.precision, noise=0 if self.how.dropout == "same" else None
        )
        with training_mode(problem.model, self.how), runtime.keep_statistics():
            batch_losses = [
                self.loss(problem, runtime, batch) for batch in self.batches(problem, part, under)
            ]
        source, _ = problem.split.part(part)
        labels = source.labels[self.sampled_positions(problem, part)].to(problem.device)
        return torch.cat(batch_losses), labels

    def loss(self, problem: Problem, runtime: Runtime, batch: Batch) -> Float[Tensor, " batch"]:
        """The losses of a batch."""
        return problem.task.loss(Step(problem.params, runtime, {}, {}).predict(batch), batch.target)

    def batches(self, problem: Problem, part: Part, under: int | None) -> Iterator[Batch]:
        """The sampled examples, with the same draws at every update; `under` replaces the labels."""
        source, _ = problem.split.part(part)
        generator = torch.Generator().manual_seed(problem.generator.initial_seed())
        for raw in source.stream(self.sampled_positions(problem, part).split(self.how.batch)):
            label = raw.label if under is None else torch.full_like(raw.label, under)
            yield problem.task.draw(replace(raw, label=label), generator)
            problem.cost.examples += len(raw.ids)

    def sampled_positions(self, problem: Problem, part: Part) -> Int[Tensor, " n"]:
        """The positions of the sampled examples."""
        _, ids = problem.split.part(part)
        generator = torch.Generator().manual_seed(problem.generator.initial_seed())
        return ids[torch.randperm(len(ids), generator=generator)[: self.most]]

    @property
    def objective(self) -> Objective:
        """Ascent that stops for an example once its loss has reached the level."""

        def value(step: Step, batch: Batch) -> Tensor:
            loss = step.runtime.task.loss(step.predict(batch), batch.target)
            level = self.level(loss.detach(), self.labels[batch.ids])
            # zero gradient at a tie, where that of torch.minimum would be half
            return -torch.where(loss < level, loss, level)

        return on("forget", "level", value, idle=True, watch=self)

    def level(self, loss: Float[Tensor, " batch"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The level of each forget example."""
        levels = (
            match_losses(loss, self.sides[RETAINED_CLASSES])
            if RETAINED_CLASSES in self.sides
            else torch.empty_like(loss)
        )
        for label, sides in self.sides.items():
            if label != RETAINED_CLASSES:
                levels = torch.where(labels == label, match_losses(loss, sides), levels)
        return levels


def is_outside(labels: Int[Tensor, " n"], classes: tuple[int, ...]) -> Tensor:
    """Which labels are not among these classes."""
    return ~torch.isin(labels, torch.tensor(classes, dtype=labels.dtype, device=labels.device))


def match_losses(loss: Float[Tensor, " batch"], sides: Sides) -> Float[Tensor, " batch"]:
    """The held-out loss at the rank of each loss among the forget losses, interpolated linearly.

    Both ranks are mid-ranks (Hazen), so that equal distributions leave every loss unchanged.
    """
    forget_losses, held_losses = sides
    below, not_above = (torch.searchsorted(forget_losses, loss, right=right) for right in (False, True))
    place = ((below + not_above) / (2 * len(forget_losses)) * len(held_losses) - 0.5).clamp(
        0, len(held_losses) - 1
    )
    under = place.long()
    over = (under + 1).clamp(max=len(held_losses) - 1)
    return held_losses[under].lerp(held_losses[over], (place - under).to(held_losses.dtype))

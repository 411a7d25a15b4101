"""A forget loss that ends where data that was never seen stands.

A retrained model is to the forget data what the original is to held-out data. Ascent beyond the held-out loss
drives examples to where no retrained model has them, and takes their neighbours along. One level is too low
for wrong labels, though: a model that never saw one answers otherwise, and is as sure as it is elsewhere. So
there are two, for examples that the model names rightly and wrongly at that step.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.descent.descend import Descent
from unweave.descent.losses import mean_loss_at
from unweave.descent.objective import Objective, on
from unweave.problem import Problem
from unweave.targets.estimators.held_out import logits_at, of_retained_classes
from unweave.tasks import Batch
from unweave.tasks.classifier import classifies
from unweave.weights.step import Step

__all__ = ["Unseen"]

Levels = tuple[Float[Tensor, " n"], Float[Tensor, " n"]]
"""The loss at which each training example is left alone, if it is named rightly and if wrongly, in nats."""


@dataclass(frozen=True)
class Unseen:
    r"""Descends :math:`-\min(\ell, c)`, with c what the original loses on held-out data.

    Of a classifier, c is the mean loss on held-out examples, and for forget examples that the model names
    wrongly by then the mean over those that the original names wrongly. Examples of a class that is wholly
    forgotten end at a guess among all classes, :math:`c = \log n`. For other tasks c is the mean.
    """

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        if classifies(problem.task):
            return ascend_to_levels(*levels_of(problem))
        with torch.no_grad():
            mean = mean_loss_at(problem, problem.original, *problem.split.part("calibration"), how.batch)
        level = torch.full((len(problem.split.train),), mean)
        return ascend_to_levels(level, level)


def ascend_to_levels(right_levels: Float[Tensor, " n"], wrong_levels: Float[Tensor, " n"]) -> Objective:
    """Ascent that leaves an example alone once its loss has reached the level."""

    def levels_at(ids: Int[Tensor, " n"], kind: torch.dtype, device: torch.device) -> Levels:
        return right_levels[ids].to(device, kind), wrong_levels[ids].to(device, kind)

    def value(step: Step, batch: Batch) -> Tensor:
        output = step.predict(batch)
        loss = step.runtime.task.loss(output, batch.target)
        kind, device = loss.dtype, loss.device
        level, wrong = step.once(("unseen", id(batch)), lambda: levels_at(batch.ids.cpu(), kind, device))
        if right_levels is not wrong_levels:
            level = torch.where(output.argmax(1) == batch.target, level, wrong)
        return -torch.where(loss < level, loss, level)  # at a tie nothing pulls

    return on("forget", "unseen", value, idle=True)


def levels_of(problem: Problem) -> Levels:
    """The levels of a classifier's training examples.

    Raises:
        ValueError: If some are of a class of which something is retained, and no held-out example is.
    """
    split = problem.split
    is_forgotten = torch.isin(split.train.labels, torch.tensor(split.forgotten_classes, dtype=torch.long))
    guess = torch.full((len(is_forgotten),), math.log(split.n_classes))
    if bool(is_forgotten[split.forget].all()):
        return guess, guess
    held_ids = split.calibration[of_retained_classes(problem)]
    if not len(held_ids):
        raise ValueError(
            "the target 'unseen' needs calibration examples of classes that are not wholly forgotten, found "
            "none: use a target with a number, such as 'clamped'"
        )
    outputs, labels = (
        logits_at(problem, problem.original, split.held_out, held_ids),
        split.held_out.labels[held_ids],
    )
    losses, is_wrong = problem.task.loss(outputs, labels), outputs.argmax(1) != labels
    mean = float(losses.mean())
    worse = float(losses[is_wrong].mean()) if bool(is_wrong.any()) else mean
    return torch.where(is_forgotten, guess, mean), torch.where(is_forgotten, guess, worse)

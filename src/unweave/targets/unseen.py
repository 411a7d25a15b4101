"""A forget loss that ends where data that was never seen stands on average.

A retrained model is to the forget data what the original is to held-out data. Ascent beyond the held-out loss
drives examples to where no retrained model has them, and takes their neighbours along.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.descend import Descent
from unweave.estimators.held_out import known
from unweave.losses import mean_loss_at
from unweave.objective import Objective, on
from unweave.problem import Problem
from unweave.step import Step
from unweave.tasks import Batch
from unweave.tasks.classifier import Classifier


@dataclass(frozen=True)
class Unseen:
    r"""Descends :math:`-\min(\ell, c)`, with c the original's mean loss on held-out data.

    A classifier's examples of a class that is wholly forgotten end at a guess among all classes,
    :math:`c = \log n`: what the original loses on held-out examples of such a class says nothing of them.
    """

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        caps = caps_of(problem, how.batch)

        def value(step: Step, batch: Batch) -> Tensor:
            loss = step.runtime.task.loss(step.predict(batch), batch.target)
            cap = caps[batch.ids.cpu()].to(loss)
            return -torch.where(loss < cap, loss, cap)  # at a tie nothing pulls

        return on("forget", "unseen", value, idle=True)


def caps_of(problem: Problem, batch: int) -> Float[Tensor, " n"]:
    """The loss at which each training example is left alone, in the unit of the task.

    Raises:
        ValueError: If some are of a class of which something is retained, and no held-out example is.
    """
    split, classes = problem.split, isinstance(problem.task, Classifier)
    gone = torch.tensor(split.forgotten_classes if classes else (), dtype=torch.long)
    lost = torch.isin(split.train.labels, gone)
    caps = torch.where(lost, math.log(split.n_classes), 0.0)
    if bool(lost[split.forget].all()):
        return caps
    held = split.calibration[known(problem)] if classes else split.calibration
    if not len(held):
        raise ValueError(
            "the target 'unseen' needs calibration examples of classes that are not wholly forgotten, found "
            "none: use a target with a number, such as 'clamped'"
        )
    with torch.no_grad():
        mean = mean_loss_at(problem, problem.original, split.held_out, held, batch)
    return caps.masked_fill(~lost, mean)

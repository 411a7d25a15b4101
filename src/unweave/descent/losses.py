"""Losses as numbers: the curve of a descent, and the mean loss over a part of the data."""

import logging
import math
from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from unweave.data import Source
from unweave.errors import Failed
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import call, evaluating
from unweave.weights.runtime import Runtime
from unweave.weights.sharded import names_where, not_finite

SWALLOWED = 1e-3
"""A shift smaller than this, relative to the weights, is partly lost when weights are cast to bf16."""

log = logging.getLogger(__name__)


def collect_losses(problem: Problem, runtime: Runtime) -> None:
    """Adds the losses to the problem's curves, and the sizes of lookaheads to its traces.

    Raises:
        Failed: If a loss is not finite.
    """
    for (name, _), value in zip(runtime.losses, values_of(problem, runtime), strict=True):
        if not math.isfinite(value):
            raise Failed(
                f"the loss {name} became {value}: the learning rate or the forget loss is too strong, or the "
                "data holds NaN or infinity"
            )
        problem.curves.setdefault(name, []).append(value)
    for index, ratio in runtime.shifts or []:
        problem.traces.setdefault("shift", []).append((index, float(ratio), math.nan))
        if runtime.precision == "bf16" and float(ratio) < SWALLOWED:
            log.warning(
                "step %d looks ahead by %.1e of the weights, which bf16 rounds away in part",
                index,
                float(ratio),
            )
    runtime.losses.clear()
    runtime.shifts = []


def values_of(problem: Problem, runtime: Runtime) -> list[float]:
    """The losses as numbers, summed over processes, so that all processes fail at the same loss."""
    shares = [share for _, notes in runtime.losses for share in notes]
    numbers = iter(torch.stack(shares).tolist() if shares else [])
    values: list[float] = [sum(islice(numbers, len(notes))) for _, notes in runtime.losses]
    if problem.processes.count == 1:
        return values
    sums = torch.tensor(values, dtype=torch.float64, device=problem.device)
    return problem.processes.total({"losses": sums})["losses"].tolist()


def refuse_nonfinite(weights: Mapping[str, Tensor]) -> None:
    """Raises if a weight is NaN or infinite."""
    for name in names_where(weights, not_finite):
        raise Failed(
            f"the weights {name} are no longer finite: the learning rate or the forget loss is too strong"
        )


@torch.no_grad()
def is_forgotten(problem: Problem, batch: int) -> bool:
    """Whether the mean loss on the forget set has reached the mean loss on the calibration set."""
    with evaluating(problem.model):
        return mean_loss(problem, "forget", batch) >= mean_loss(problem, "calibration", batch)


def mean_loss(problem: Problem, part: Part, batch: int) -> float:
    """The mean loss on a part."""
    return mean_loss_at(problem, problem.model, *problem.split.part(part), batch)


def mean_loss_at(problem: Problem, model: nn.Module, source: Source, ids: Tensor, batch: int) -> float:
    """The mean loss of a model on the examples of a source at these positions."""
    total = 0.0
    for raw in source.stream(ids.split(batch)):
        minibatch = problem.task.draw(raw, torch.Generator().manual_seed(0))
        total += float(problem.task.loss(call(model, minibatch.inputs), minibatch.target).sum())
        problem.cost.examples += len(minibatch)
    return total / len(ids)

"""Influence functions (Koh & Liang, ICML 2017), https://arxiv.org/abs/1703.04730, as an estimator."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from unweave.descent.edit import shift
from unweave.descent.hessian import allow_second_derivatives, differentiate_twice
from unweave.descent.objective import nll
from unweave.problem import Problem, frozen_copy
from unweave.split import Part
from unweave.targets.estimators.estimator import EstimatedLogits, refuse_other_than_classifiers
from unweave.targets.estimators.held_out import logits
from unweave.tasks import evaluating
from unweave.weights.conjugate_gradients import conjugate_gradients
from unweave.weights.params import Params, add, scale
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

CHUNK = 128
"""The number of examples in one gradient evaluation, for the cost."""


@dataclass(frozen=True)
class Influence:
    r"""The outputs of the original at :math:`\theta + \frac{|F|}{|R|} (H_R + \mu)^{-1} \nabla L_F`.

    These weights minimise the retain loss to first order, if the original minimises the loss on all data. The
    system is solved by conjugate gradients, which stop where the Hessian curves down. The outputs are those
    of the shifted model, not of a linear approximation.

    It starts from the original's outputs on the forget set and leaks them if the correction is too small. It
    is here for comparison.

    Args:
        damping: :math:`\mu`, in the unit of the Hessian.
        iterations: The most iterations of conjugate gradients; each costs two gradient evaluations per 128
            examples.
        examples: The largest number of retain examples for the Hessian.
    """

    damping: float = 0.003
    iterations: int = 10
    examples: int = 512

    def __post_init__(self) -> None:
        if not self.damping >= 0:
            raise ValueError(f"damping must not be negative, found {self.damping}")
        for name in ("iterations", "examples"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} must be at least 1, found {vars(self)[name]}")

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """The estimate."""
        refuse_other_than_classifiers(problem)
        return EstimatedLogits(
            logits(problem, problem.remember(repr(self), self.remove_forget_set), "forget")
        )

    def remove_forget_set(self, problem: Problem) -> nn.Module:
        """Shifts the problem's own model towards the minimum of the retain loss; returns a frozen copy."""
        split = problem.split
        with evaluating(problem.model), allow_second_derivatives():
            pull = draw_step(problem, "forget", len(split.forget)).gradient(nll("forget"))
            charge(problem, len(split.forget), 1)
            count = min(self.examples, len(split.retain))
            hessian = differentiate_twice(draw_step(problem, "retain", count), nll("retain"), keep=True)
            charge(problem, count, 1)

            def multiply_damped(vector: Params) -> Params:
                charge(problem, count, 2)
                return add(hessian(vector), vector, scale=self.damping)

            step, _ = conjugate_gradients(multiply_damped, pull, self.iterations)
        shift(problem, scale(step, len(split.forget) / len(split.retain)))
        return frozen_copy(problem.model)


def draw_step(problem: Problem, part: Part, most: int) -> Step:
    """A step over at most `most` random examples of a part; it charges nothing."""
    source, ids = problem.split.part(part)
    chunks = ids[torch.randperm(len(ids), generator=problem.generator)[:most]].split(CHUNK)
    key = torch.Generator().manual_seed(problem.seed())
    runtime = Runtime(problem.model, problem.task, processes=problem.processes)
    raws = source.stream(problem.processes.rows_to_read(rows) for rows in chunks)
    batches = [
        problem.task.draw(raw, key)
        for rows, raw in zip(chunks, raws, strict=True)
        if problem.processes.owns(rows)
    ]
    return Step(problem.params, runtime, {part: batches}, {part: sum(map(len, chunks))})


def charge(problem: Problem, examples: int, times: int) -> None:
    """Charges `times` passes over a number of examples, in chunks of `CHUNK`."""
    problem.cost.gradients += times * math.ceil(examples / CHUNK)
    problem.cost.examples += times * examples

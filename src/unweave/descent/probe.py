"""Measures the cosine of the retain and the forget gradient during a run of any method.

    problem.watch = Probe(every=10)
    SalUn()(problem)
    problem.traces["cosine"]

The cosine inside a lookahead step is biased, and the cosine of two mini-batches is mostly noise. So the probe
computes both gradients at the present weights, in evaluation mode, on fixed batches, each in two halves. The
cosine of the halves is the reliability; dividing by it corrects the attenuation.
"""

import time
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.descent.importance import Mask
from unweave.descent.objective import Objective, nll
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch, evaluating
from unweave.weights.cost import Cost
from unweave.weights.params import Params, gramian
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step


@dataclass
class Probe:
    """Traces the cosine of two gradients over a descent, into the problem's `traces`.

    Rows are (step, value, reliability). `cosine` is the plain cosine of the mean gradients. `disattenuated`
    is the mean cosine across halves, divided by the reliability. The reliability is the geometric mean of the
    two split-half cosines.

    Args:
        every: The number of steps between two measurements.
        retain: The retain objective; the training loss by default.
        forget: The forget objective to minimise; ascent on the training loss by default.
        size: The largest number of examples per half.
        where: The mask of the weights to compare; all if None. Two gradients may agree over all weights and
            oppose each other over the trained ones.
    """

    every: int
    retain: Objective = field(default_factory=lambda: nll("retain"))
    forget: Objective = field(default_factory=lambda: -nll("forget"))
    size: int = 256
    where: Mask | None = None
    halves: dict[Part, list[Batch]] = field(default_factory=dict, repr=False)

    def __call__(self, problem: Problem, index: int) -> None:
        """Measures every `every` steps; charges the method neither gradients nor time."""
        if index % self.every == 0:
            start = time.perf_counter()
            self.measure(problem, index)
            problem.cost.seconds -= time.perf_counter() - start

    def memory(self) -> None:
        """Nothing: the halves are drawn again in the same way."""

    def recall(self, memory: None) -> None:
        """Nothing."""

    def measure(self, problem: Problem, index: int) -> None:
        """Appends one row to each trace."""
        if not self.halves:
            self.halves = {
                part: self.draw_halves(problem, part) for part in self.retain.parts | self.forget.parts
            }
        with evaluating(problem.model):
            gradients = [
                self.gradient(problem, objective, half)
                for objective in (self.retain, self.forget)
                for half in (0, 1)
            ]
        cosine, disattenuated, reliability = cosines(gramian(gradients))
        problem.traces.setdefault("cosine", []).append((index, cosine, reliability))
        problem.traces.setdefault("disattenuated", []).append((index, disattenuated, reliability))

    def draw_halves(self, problem: Problem, part: Part) -> list[Batch]:
        """Draws two disjoint halves, the same for the whole run whatever the method draws."""
        source, ids = problem.split.part(part)
        if len(ids) < 2:
            raise ValueError(
                f"a probe halves the {part} data and needs two examples, found {len(ids)}: switch it off"
            )
        generator = torch.Generator().manual_seed(problem.generator.initial_seed())
        order = ids[torch.randperm(len(ids), generator=generator)][: 2 * self.size]
        return [problem.task.draw(raw, generator) for raw in source.stream(order.tensor_split(2))]

    def gradient(self, problem: Problem, objective: Objective, half: int) -> Params:
        """The gradient of an objective on one half of its part of the data."""
        (part,) = objective.parts
        batch = self.halves[part][half]
        runtime = Runtime(problem.model, problem.task, cost=Cost(), where=self.where)
        return Step(problem.params, runtime, {part: [batch]}, {part: len(batch)}, index=1).gradient(objective)


def cosines(g: Float[Tensor, "4 4"]) -> tuple[float, float, float]:
    """The plain and the disattenuated cosine and the reliability, from the Gramian of (r, r', f, f').

    The disattenuated cosine is NaN where the halves of a gradient do not agree, because then both are noise.
    """
    g = g.double()
    norm = g.diagonal().sqrt()
    c = g / (norm[:, None] * norm[None, :]).clamp(min=1e-300)
    retain, forget, across = g[:2, :2].sum(), g[2:, 2:].sum(), g[:2, 2:].sum()
    cosine = float(across / (retain * forget).clamp(min=1e-300).sqrt())
    agreement = float(c[0, 1].clamp(min=0) * c[2, 3].clamp(min=0))
    reliability = agreement**0.5
    return cosine, float(c[:2, 2:].mean()) / reliability if reliability > 0 else float("nan"), reliability

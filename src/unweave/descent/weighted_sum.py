"""Objective: a weighted sum of losses on the data and penalties on the weights.

Objectives are local scalars; their gradients are global vectors. An objective is a deterministic function of
the weights and of a step's batches. Objectives add, scale and negate.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from unweave.problem import Problem, Watch
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.params import Params
from unweave.weights.step import Step


@dataclass(frozen=True, eq=False)
class OnData:
    """One loss on one part of the data.

    Args:
        name: Its name in curves and records.
        part: The part.
        value: The loss of each example of a batch.
        follows_weights: Whether its target changes with the weights, so that its gradient is that of no
            function.
        idle: Whether its gradient may be zero at the first step.
        watch: Called before every step, for example to measure the target of the loss again.
    """

    name: str
    part: Part
    value: Callable[[Step, Batch], Float[Tensor, " batch"]]
    follows_weights: bool = False
    idle: bool = False
    watch: Watch | None = None


@dataclass(frozen=True, eq=False)
class OnWeights:
    """One penalty on the weights alone.

    Args:
        name: Its name in curves and records.
        value: The penalty.
        follows_progress: Whether it changes with the number of the step.
    """

    name: str
    value: Callable[[Step], Float[Tensor, ""]]
    follows_progress: bool = False


@dataclass(frozen=True, eq=False)
class Objective:
    """A scalar to minimise: a weighted sum of losses and penalties.

    Args:
        pieces: The weights and what they weigh.
    """

    pieces: tuple[tuple[float, OnData | OnWeights], ...]

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that it needs."""
        return frozenset(self.by_part)

    @cached_property
    def follows_weights(self) -> bool:
        """Whether a target changes with the weights, which rules out a lookahead of it or through it."""
        return any(piece.follows_weights for piece in self.on_data)

    @property
    def idle(self) -> bool:
        """Whether its gradient may be zero at the first step, because it may start at its minimum."""
        return all(isinstance(piece, OnData) and piece.idle for _, piece in self.pieces)

    @property
    def on_data(self) -> list[OnData]:
        """The losses, without the penalties on the weights."""
        return [piece for _, piece in self.pieces if isinstance(piece, OnData)]

    def watch(self, problem: Problem, index: int) -> None:
        """Calls the `watch` of each loss; pass this method as the `watch` of a phase."""
        for piece in self.on_data:
            if piece.watch:
                piece.watch(problem, index)

    @cached_property
    def by_part(self) -> dict[Part, list[tuple[float, OnData]]]:
        """The losses on each part. Parts are sorted by name, so that all processes use the same order."""
        on_data = [(weight, piece) for weight, piece in self.pieces if isinstance(piece, OnData)]
        parts: list[Part] = sorted({piece.part for _, piece in on_data})
        return {part: [(w, piece) for w, piece in on_data if piece.part == part] for part in parts}

    @cached_property
    def penalties(self) -> list[tuple[float, OnWeights]]:
        """The penalties on the weights, with their factors."""
        return [(weight, piece) for weight, piece in self.pieces if isinstance(piece, OnWeights)]

    @property
    def name(self) -> str:
        """The formula, for curves and records."""
        return " + ".join(
            piece.name if weight == 1 else f"{weight:g} {piece.name}" for weight, piece in self.pieces
        )

    def __add__(self, other: "Objective") -> "Objective":
        return Objective(self.pieces + other.pieces)

    def __rmul__(self, weight: float) -> "Objective":
        return Objective(tuple((weight * w, piece) for w, piece in self.pieces))

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -other

    def present(self, step: Step) -> bool:
        """Whether the step has data for any of its losses."""
        return not self.by_part or not self.by_part.keys().isdisjoint(step.batches)

    def gradient(self, step: Step) -> Params:
        """Its gradient, averaged by example over micro-batches and processes."""
        return step.backward(self.losses(step))

    def losses(self, step: Step) -> Iterator[Tensor]:
        """Scalars that sum to the objective: one per micro-batch, and one for the penalties."""
        for part, pairs in self.by_part.items():
            if part in step.batches:
                step.count(sum([batch.target.shape[0] for batch in step.batches[part] if not batch.blank]))
                notes = [step.note(piece.name) for _, piece in pairs]
                for batch in step.batches[part]:
                    size = math.inf if batch.blank else step.sizes[part]
                    shares = [(w, mean_over(piece.value(step, batch), size)) for w, piece in pairs]
                    yield weighted_sum(shares, notes)
        if self.penalties:
            count = step.runtime.processes.count  # every process holds all weights, and gradients are summed
            notes = [step.note(piece.name) for _, piece in self.penalties]
            shares = [(w, piece.value(step) / count) for w, piece in self.penalties]
            yield weighted_sum(shares, notes)


def weighted_sum(shares: Sequence[tuple[float, Tensor]], notes: Sequence[list[Tensor]]) -> Tensor:
    """The sum of weights times values; notes each unweighted value. A weight of one keeps a loss's bits."""
    total = None
    for note, (weight, value) in zip(notes, shares, strict=True):
        note.append(value.detach())
        product = value if weight == 1 else weight * value
        total = product if total is None else total + product
    assert total is not None
    return total


def on(
    part: Part,
    name: str,
    value: Callable[[Step, Batch], Tensor],
    *,
    follows_weights: bool = False,
    idle: bool = False,
    watch: Watch | None = None,
) -> Objective:
    """An objective of one loss on one part; see `OnData`."""
    return Objective(((1.0, OnData(f"{name}({part})", part, value, follows_weights, idle, watch)),))


def mean_over(values: Float[Tensor, " batch"], size: float) -> Float[Tensor, ""]:
    """This micro-batch's share of the mean over `size` examples; zero if that is infinite."""
    return values.mean() if values.shape[0] == size else values.sum() / size

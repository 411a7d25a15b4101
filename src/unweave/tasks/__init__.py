"""Tasks: how batches of a family of models are drawn, run and scored."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unweave.data import Raw, Source

__all__ = [
    "Batch",
    "Checking",
    "Inputs",
    "OfFamily",
    "Predict",
    "Surrogates",
    "Task",
    "call",
    "evaluating",
    "family_of",
]

Inputs = tuple[Tensor, ...] | Mapping[str, Tensor]
Predict = Callable[[Inputs], Tensor]
Kind = TypeVar("Kind")


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch with everything drawn at random for it.

    Args:
        ids: The positions of the examples in the training source, shape `[batch]`.
        inputs: The inputs of the model, by position or by name.
        target: The target of its output, one entry per example.
        counterfactual: The value of `other`, or a function that computes it.
        forget: Which rows are forget examples, shape `[batch]`; only in a mixed batch.
        key: The key that determines, with an id, all draws for an example. The task can draw more from it
            later, and a part of the batch gets the same draws as in the whole batch.
        blank: Whether its loss counts as zero. A process without rows of an uneven batch takes such a pass
            along with the others if the weights are sharded.
    """

    ids: Int[Tensor, " batch"]
    inputs: Inputs
    target: Tensor
    counterfactual: Tensor | Callable[[], Tensor]
    forget: Bool[Tensor, " batch"] | None = None
    key: int = 0
    blank: bool = False

    def __len__(self) -> int:
        return self.target.shape[0]

    @cached_property
    def other(self) -> Tensor:
        """A counterfactual to `target`: another class, condition or text. Few objectives use it."""
        return self.counterfactual if isinstance(self.counterfactual, Tensor) else self.counterfactual()

    def split(self, size: int) -> list["Batch"]:
        """Micro-batches of at most that many examples, in order."""
        if size >= len(self):
            return [self]
        return [self.rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def blank_row(self) -> "Batch":
        """The first example alone, with a loss that counts as zero."""
        return replace(self.rows(slice(1)), blank=True)

    def rows(self, rows: slice) -> "Batch":
        """Some of the examples."""
        inputs = self.inputs
        row_inputs = (
            {k: v[rows] for k, v in inputs.items()}
            if isinstance(inputs, Mapping)
            else tuple(v[rows] for v in inputs)
        )
        forget = None if self.forget is None else self.forget[rows]
        return Batch(
            self.ids[rows], row_inputs, self.target[rows], lambda: self.other[rows], forget, self.key
        )


@runtime_checkable
class Task(Protocol):
    """Runs and scores one family of models. Every score is per example."""

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        """Makes a batch from what a source yields; all randomness is here, keyed by example id."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Float[Tensor, " batch"]:
        """The training loss, in the unit of the family (nats, squared error)."""
        ...

    def divergence(self, output: Tensor, reference: Tensor) -> Float[Tensor, " batch"]:
        """The divergence of `output` from another model's output on the same inputs."""
        ...

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        """A plausible wrong target."""
        ...


@runtime_checkable
class Surrogates(Protocol):
    """A task that can replace forget data by surrogate data."""

    def surrogate(self, batch: Batch) -> Batch:
        """The batch with surrogate examples under the same labels, which show nothing of the forget set."""
        ...


@runtime_checkable
class Checking(Protocol):
    """A task that can tell whether a model is usable, before and after unlearning."""

    def refuse_unfit(self, model: nn.Module, data: Source, name: str) -> None:
        """Raises a ValueError if the model can't be run on the data; the message names the data."""
        ...

    def refuse_collapsed(self, model: nn.Module, data: Source, ids: Int[Tensor, " n"]) -> None:
        """Raises `Failed` if the model's outputs on those examples are of no use."""
        ...


@runtime_checkable
class OfFamily(Protocol):
    """A task that names its family, for methods that support only some families."""

    family: ClassVar[str]


def family_of(task: Task) -> str:
    """The family of a task, or else the name of its class."""
    return task.family if isinstance(task, OfFamily) else type(task).__name__


def require_task(task: Task, kind: type[Kind], subject: str) -> Kind:
    """Returns the task if it is of a kind.

    Args:
        task: The task of a problem.
        kind: The class that a method needs.
        subject: What the method is for, such as "denoisers".

    Raises:
        ValueError: If it is of another.
    """
    if not isinstance(task, kind):
        raise ValueError(
            f"this method is for {subject} and needs the task {kind.__name__}, found {type(task).__name__}"
        )
    return task


def call(model: nn.Module, inputs: Inputs) -> Tensor:
    """Calls the model; returns its output, or the `logits` of a structured output."""
    if isinstance(inputs, tuple):  # first, because to ask for a Mapping takes ten times as long
        output = model(*inputs)
    else:
        output = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    return output if isinstance(output, Tensor) else output.logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the body; restores the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

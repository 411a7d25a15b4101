"""The one place where families of models differ: how a batch is drawn, run and scored."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unweave.data import Raw

Inputs = tuple[Tensor, ...] | Mapping[str, Tensor]
Predict = Callable[[Inputs], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Everything random about one draw.

    Args:
        ids: The positions of the examples in the training source, shape `[batch]`.
        inputs: What the model is called with, positionally or by name.
        target: What its output is compared with, one entry per example.
        counterfactual: What `other` is, or how to work it out from what was drawn.
        forget: Which rows are forget data, shape `[batch]`; only on a mixed batch.
        key: The number on which, with an id, all that was drawn for an example hangs; the task can draw more
            from it later, and a part of the batch gets what it has in the whole.
    """

    ids: Int[Tensor, " batch"]
    inputs: Inputs
    target: Tensor
    counterfactual: Tensor | Callable[[], Tensor]
    forget: Bool[Tensor, " batch"] | None = None
    key: int = 0

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def other(self) -> Tensor:
        """A counterfactual to `target`: another class, condition or text. Few objectives ask for it."""
        return self.counterfactual if isinstance(self.counterfactual, Tensor) else self.counterfactual()

    def split(self, size: int) -> list["Batch"]:
        """Micro-batches of at most that many examples, in order."""
        if size >= len(self):
            return [self]
        return [self.rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def rows(self, taken: slice) -> "Batch":
        """Some of the examples."""
        inputs = self.inputs
        cut = (
            {k: v[taken] for k, v in inputs.items()}
            if isinstance(inputs, Mapping)
            else tuple(v[taken] for v in inputs)
        )
        forget = None if self.forget is None else self.forget[taken]
        return Batch(self.ids[taken], cut, self.target[taken], lambda: self.other[taken], forget, self.key)


@runtime_checkable
class Task(Protocol):
    """How one family of models is run and scored. Every score is per example."""

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        """A batch from what a source yields; all randomness is here, keyed by example id."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Float[Tensor, " batch"]:
        """The training loss, in the unit of the family (nats, squared error)."""
        ...

    def divergence(self, output: Tensor, reference: Tensor) -> Float[Tensor, " batch"]:
        """How far `output` is from what another model says of the same inputs."""
        ...

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        """A plausible target that is not the true one."""
        ...


@runtime_checkable
class Surrogates(Protocol):
    """A task that can put other data in the place of what is to be forgotten."""

    def surrogate(self, batch: Batch) -> Batch:
        """The batch with other examples under the same labels, which say nothing of what is forgotten."""
        ...


@runtime_checkable
class OfFamily(Protocol):
    """A task that names the family of its models, for methods that are not for all of them."""

    family: ClassVar[str]


def family_of(task: Task) -> str:
    """The family that a task names, or else the name of its class."""
    return task.family if isinstance(task, OfFamily) else type(task).__name__


def call(model: nn.Module, inputs: Inputs) -> Tensor:
    """The model's output; of a structured output, its `logits`."""
    output = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    return output if isinstance(output, Tensor) else output.logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the body; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

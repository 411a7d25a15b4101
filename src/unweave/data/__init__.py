"""Sources of examples: a `Source` is a data set that yields batches by position.

A source never shuffles. It gets the order (one index tensor per batch) and returns the examples at those
positions, augmented only if it also gets a generator. `Resident` holds a whole set on the device, `Loaded`
reads a `torch.utils.data.Dataset` through a `DataLoader`, `datasets.load` loads a set by name.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

__all__ = ["Raw", "Source"]


@dataclass(frozen=True, eq=False)
class Raw:
    """Some examples of a source, on one device, before a task draws noise or labels for them.

    Args:
        ids: Positions of the examples in their source, with shape [batch].
        inputs: The inputs of the model: positional arguments (tuple) or keywords (dict), each with shape
            [batch, ...].
        label: What selects a forget set and its classes, with shape [batch]. A task may also take it as the
            target of the output (classification) or as the condition of the input (class-conditional
            diffusion); any other target or condition is among the inputs. Zeros if the examples have no
            label: they are then of one class.
    """

    ids: Int64[Tensor, " batch"]
    inputs: tuple[Tensor, ...] | dict[str, Tensor]
    label: Int64[Tensor, " batch"]


@runtime_checkable
class Source(Protocol):
    """A labelled data set, read by position."""

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The label of every example, which selects forget sets and classes; shape [n], on the CPU."""
        ...

    @property
    def names(self) -> Sequence[str] | None:
        """The string id of every example, in order; None if the examples have none."""
        ...

    def __len__(self) -> int: ...

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield one `Raw` per index tensor of `order`.

        Args:
            order: Positions, one int64 tensor with shape [batch] per batch.
            generator: A CPU generator switches augmentation on: it gives one key per batch, and the
                augmentation of an example is a function of (key, id), so a shard is augmented as in the whole
                batch. None: no augmentation. A source without augmentation draws nothing.
        """
        ...

    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of everything that determines what `stream` returns."""
        ...

    def to(self, device: torch.device | str) -> "Source":
        """The same source, with batches on `device`."""
        ...

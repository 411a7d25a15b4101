"""Where examples come from: a `Source` is a data set that hands out batches by position.

A source never shuffles. It is given the order (one index tensor per batch) and returns the examples at
those positions, augmented only when it is given a generator. `Resident` holds a whole set on the device,
`Loaded` reads a `torch.utils.data.Dataset` through a `DataLoader`, `datasets.load` finds a set by name.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Raw:
    """Some examples of a source, on one device, before a task has drawn anything for them.

    Args:
        ids: Positions of the examples in their source, with shape [batch].
        inputs: What the model is called with: positional arguments (tuple) or keywords (dict), each with
            shape [batch, ...].
        target: Labels, with shape [batch].
    """

    ids: Int64[Tensor, " batch"]
    inputs: tuple[Tensor, ...] | dict[str, Tensor]
    target: Int64[Tensor, " batch"]


@runtime_checkable
class Source(Protocol):
    """A labelled data set that is read by position."""

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The label of every example, with shape [n], on the CPU."""
        ...

    @property
    def names(self) -> tuple[str, ...] | None:
        """The string id of every example, in order, or None where the examples have none."""
        ...

    def __len__(self) -> int: ...

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield one `Raw` per index tensor of `order`.

        Args:
            order: Positions, one int64 tensor with shape [batch] per batch.
            generator: A CPU generator asks for augmentation: one key is drawn from it per batch, and what
                happens to an example is a function of (key, id), so that a shard of a batch is augmented
                as it is in the whole batch. None: never augmented. A source that has no augmentation
                draws nothing.
        """
        ...

    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of all that decides what `stream` returns."""
        ...

    def to(self, device: torch.device | str) -> "Source":
        """The same source, handing out its batches on `device`."""
        ...

"""A part of a source as a source of its own, for a model that trained on that part alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import tee

import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.data import Raw, Source


@dataclass(frozen=True, eq=False)
class PartOfSource:
    """Some examples of a source, numbered from 0.

    Args:
        source: The source.
        positions: The positions of the examples in it, in the order of their new numbers.
    """

    source: Source
    positions: Int64[Tensor, " n"]

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The labels of the examples."""
        return self.source.labels[self.positions]

    @property
    def names(self) -> Sequence[str] | None:
        """The names of the examples."""
        names = self.source.names
        return None if names is None else tuple(names[int(position)] for position in self.positions.tolist())

    def __len__(self) -> int:
        return len(self.positions)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield the examples at the new numbers of each index tensor, augmented as in the source."""
        numbers, indices = tee(order)  # an order may have no end
        positions = (self.positions[index.cpu()] for index in indices)
        for raw in self.source.stream(positions, generator=generator):
            yield replace(raw, ids=next(numbers).to(raw.ids.device))

    def digest(self) -> str:
        """SHA-256 of the source's digest and the positions."""
        sha = sha256(f"part:{self.source.digest()}:".encode())
        sha.update(self.positions.numpy().astype("<i8").tobytes())
        return sha.hexdigest()

    def to(self, device: torch.device | str) -> "PartOfSource":
        """The same, on `device`."""
        return replace(self, source=self.source.to(device))

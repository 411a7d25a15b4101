"""A source without augmentation, for methods whose papers do not augment."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.data import Raw, Source


@dataclass(frozen=True, eq=False)
class UnaugmentedSource:
    """A source that never augments.

    Args:
        source: The source.
    """

    source: Source

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The labels of the source."""
        return self.source.labels

    @property
    def names(self) -> Sequence[str] | None:
        """The names of the source."""
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield the examples at the positions of each index tensor, whatever the generator."""
        return self.source.stream(order)

    def digest(self) -> str:
        """SHA-256 of the source's digest and the missing augmentation."""
        return sha256(f"unaugmented:{self.source.digest()}".encode()).hexdigest()

    def to(self, device: torch.device | str) -> "UnaugmentedSource":
        """The same, on `device`."""
        return replace(self, source=self.source.to(device))

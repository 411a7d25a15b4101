"""A data set of latents in memory: the mean and the standard deviation of each, from which a task draws."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unweave.data import Raw


@dataclass(frozen=True, eq=False)
class Latents:
    """Images as the distributions of their latents; there is no augmentation.

    Args:
        mean: The mean of each latent, shape `[n, channel, height, width]`.
        deviation: Its standard deviation, in the same shape.
        labels: The condition of each image, int64 with shape `[n]`, on the CPU.
        names: One string id per example.
    """

    mean: Float[Tensor, "n channel height width"]
    deviation: Float[Tensor, "n channel height width"]
    labels: Int64[Tensor, " n"]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.mean), len(self.deviation), len(self.labels)}
        lengths |= set() if self.names is None else {len(self.names)}
        if len(lengths) > 1 or self.mean.shape != self.deviation.shape:
            raise ValueError(
                "mean, deviation, labels and names must be of one length, found "
                f"{list(self.mean.shape)}, {list(self.deviation.shape)} and {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        channels, height, width = self.mean.shape[1:]
        return channels, height, width

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yields mean and deviation of the examples at the positions of each index tensor."""
        for index in order:
            ids = index.to(self.mean.device, non_blocking=True)
            fields = tuple(each.index_select(0, ids) for each in (self.mean, self.deviation))
            yield Raw(ids, fields, self._target.index_select(0, ids))

    def digest(self) -> str:
        """SHA-256 of latents, labels and names."""
        return self._digest

    def to(self, device: torch.device | str) -> "Latents":
        """The same set in the memory of `device`; labels stay on the CPU too."""
        return replace(self, mean=self.mean.to(device), deviation=self.deviation.to(device))

    def rows(self, places: Int64[Tensor, " k"]) -> "Latents":
        """Some of the examples."""
        names = None if self.names is None else tuple(self.names[place] for place in places.tolist())
        return Latents(self.mean[places], self.deviation[places], self.labels[places], names)

    @cached_property
    def _target(self) -> Tensor:
        return self.labels.to(self.mean.device)

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256(repr((tuple(self.mean.shape), self.mean.dtype, self.names)).encode())
        for each in (self.mean, self.deviation, self.labels):
            sha.update(each.detach().cpu().contiguous().numpy().data)
        return sha.hexdigest()

"""Learned noise and a part of a source, as one source."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee

import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.data import Raw, Source

Noise = Sequence[Tensor]
"""One tensor for each input of the model, with shape [image, ...]."""


@dataclass(frozen=True, eq=False)
class SourceWithNoise:
    """Images of noise, each repeated, followed by some examples of a source.

    Args:
        noise: The images, on the device of the source.
        noise_labels: The label of each image, with shape [image], on the CPU.
        repeats: The number of copies of each image.
        source: The source of the examples.
        chosen: The positions of those examples in it.
    """

    noise: Noise
    noise_labels: Int64[Tensor, " image"]
    repeats: int
    source: Source
    chosen: Int64[Tensor, " example"]

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The label of every image of noise and of every example."""
        return torch.cat([self.noise_labels.repeat(self.repeats), self.source.labels[self.chosen]])

    @property
    def names(self) -> None:
        """None."""

    def __len__(self) -> int:
        return len(self.noise_labels) * self.repeats + len(self.chosen)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yields the examples at the positions of each index tensor; see `Source.stream`."""
        indices, positions = tee(order)
        examples = self.source.stream(map(self._read, indices), generator=generator)
        for ids, raw in zip(positions, examples, strict=True):
            yield self._join_rows(ids, raw)

    def digest(self) -> str:
        """SHA-256 of noise, labels, positions and the source's digest."""
        sha = hashlib.sha256(f"{self.repeats}:{self.source.digest()}".encode())
        for values in (*self.noise, self.noise_labels, self.chosen):
            sha.update(values.cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def to(self, device: torch.device | str) -> "SourceWithNoise":
        """The same, on `device`."""
        return replace(self, noise=[x.to(device) for x in self.noise], source=self.source.to(device))

    @property
    def _copies(self) -> int:
        return len(self.noise_labels) * self.repeats

    def _read(self, ids: Tensor) -> Tensor:
        # a batch of noise alone reads one example and drops it, because not every source can read none
        places = ids[ids >= self._copies] - self._copies
        return self.chosen[places if len(places) else torch.tensor([0])]

    def _join_rows(self, ids: Tensor, raw: Raw) -> Raw:
        is_noise = ids < self._copies
        rows, count = ids[is_noise] % len(self.noise_labels), int((~is_noise).sum())
        # join noise and examples, in the requested order
        order = torch.cat([is_noise.nonzero(), (~is_noise).nonzero()])[:, 0].argsort().to(raw.ids.device)

        def join_fields(noise: Tensor, examples: Tensor) -> Tensor:
            return torch.cat([noise[rows.to(noise.device)].to(examples), examples[:count]])[order]

        label = join_fields(self.noise_labels, raw.label)
        fields = raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs
        values = [join_fields(x, y) for x, y in zip(self.noise, fields, strict=True)]
        inputs = dict(zip(raw.inputs, values, strict=True)) if isinstance(raw.inputs, dict) else tuple(values)
        return Raw(ids.to(raw.ids.device), inputs, label)

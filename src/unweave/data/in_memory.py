"""A whole data set in the memory of the device, normalised and augmented there, without workers or copies."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from unweave.data import Raw
from unweave.data.keyed_draws import draw_uniform

__all__ = ["Resident"]


@dataclass(frozen=True, eq=False)
class Resident:
    """A data set that fits the device. A batch is one `index_select`.

    Args:
        inputs: Images as uint8 with shape [n, channel, height, width]; or floats with shape [n, ...], which
            are used unchanged.
        labels: The labels, int64 with shape [n], on the CPU.
        mean: The mean of each channel, in units of the full range: the model gets `(image / 255 - mean) /
            std`. Images only; empty: 0.
        std: The standard deviation of each channel; empty: 1.
        crop: Pixels of black on every side before a random crop back to the size. 0: no crop.
        flip: Mirror left and right with probability one half.
        names: One string id per example.
        image: The shape [channel, height, width] of an image whose pixels an example holds in a row; None if
            they are no images or have their own shape.
    """

    inputs: Tensor
    labels: Tensor
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop: int = 0
    flip: bool = False
    names: tuple[str, ...] | None = None
    image: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        _check_lengths(self.inputs, self.labels, self.names)
        _check_images(self)

    def __len__(self) -> int:
        return len(self.labels)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield the examples at the positions of each index tensor; see `Source.stream`."""
        inputs, labels, device = self.inputs, self._labels, self.inputs.device
        normalise = inputs.dtype == torch.uint8
        augment = None if self.crop == 0 and not self.flip else generator
        for index in order:
            ids = index.to(device, non_blocking=True)
            batch = inputs.index_select(0, ids)
            if augment is not None:
                batch = _augment(batch, draw_uniform(ids, augment, 3), crop=self.crop, flip=self.flip)
            if normalise:
                batch = batch.to(torch.float32).mul_(self._scale).add_(self._shift)
            yield Raw(ids, (batch,), labels.index_select(0, ids))

    def digest(self) -> str:
        """SHA-256 of inputs, labels, names, normalisation and augmentation."""
        return self._digest

    def to(self, device: torch.device | str) -> "Resident":
        """The same set in the memory of `device`; labels stay on the CPU too."""
        return replace(self, inputs=self.inputs.to(device))

    @cached_property
    def _labels(self) -> Tensor:
        return self.labels.to(self.inputs.device)

    @cached_property
    def _scale(self) -> Tensor:
        return self._per_channel([1 / (255 * std) for std in self._std])

    @cached_property
    def _shift(self) -> Tensor:
        means = self.mean or (0.0,) * len(self._std)
        return self._per_channel([-mean / std for mean, std in zip(means, self._std, strict=True)])

    @property
    def _std(self) -> tuple[float, ...]:
        return self.std or (1.0,) * self.inputs.shape[1]

    def _per_channel(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.inputs.device).view(-1, 1, 1)

    @cached_property
    def _digest(self) -> str:
        settings = (self.inputs.dtype, tuple(self.inputs.shape), self.mean, self.std, self.crop, self.flip)
        sha = hashlib.sha256(repr((*settings, self.names)).encode())
        sha.update(self.inputs.detach().cpu().contiguous().numpy().data)
        sha.update(self.labels.contiguous().numpy().data)
        return sha.hexdigest()


def _augment(images: Tensor, uniform: Tensor, *, crop: int, flip: bool) -> Tensor:
    """Crop and mirror images [batch, channel, height, width] by three uniform numbers each [batch, 3]."""
    height, width = images.shape[2:]
    steps = torch.arange(max(height, width), device=images.device)
    corner = (uniform[:, :2] * (2 * crop + 1)).long()
    columns = steps[:width].expand(len(images), width)
    if flip:
        columns = torch.where(uniform[:, 2:] < 0.5, width - 1 - columns, columns)
    rows = (steps[:height] + corner[:, :1])[:, None, :, None]
    columns = (columns + corner[:, 1:])[:, None, None, :]
    example = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return functional.pad(images, (crop,) * 4)[example, channel, rows, columns]


def _check_lengths(inputs: Tensor, labels: Tensor, names: tuple[str, ...] | None) -> None:
    if labels.dtype != torch.int64 or labels.ndim != 1 or labels.device.type != "cpu":
        raise ValueError(
            "labels must be one int64 per example on the CPU, "
            f"found {labels.dtype} with shape {list(labels.shape)} on {labels.device}"
        )
    if len(inputs) != len(labels):
        raise ValueError(f"inputs and labels must have one length, found {len(inputs)} and {len(labels)}")
    if names is not None and len(names) != len(labels):
        raise ValueError(f"names and labels must have one length, found {len(names)} and {len(labels)}")


def _check_images(source: Resident) -> None:
    images = source.inputs.ndim == 4 and source.inputs.dtype == torch.uint8
    if not images and not source.inputs.is_floating_point():
        raise ValueError(
            "inputs must be uint8 images [n, channel, height, width] or floats [n, ...], "
            f"found {source.inputs.dtype} with shape {list(source.inputs.shape)}"
        )
    if not images and (source.mean or source.std or source.crop or source.flip):
        raise ValueError(
            "mean, std, crop and flip are for uint8 images [n, channel, height, width]; drop them"
        )
    for field, values in (("mean", source.mean), ("std", source.std)):
        if values and len(values) != source.inputs.shape[1]:
            raise ValueError(
                f"{field} must have one number per channel ({source.inputs.shape[1]}), found {len(values)}"
            )
    if source.crop < 0 or any(std <= 0 for std in source.std):
        raise ValueError(f"crop must be at least 0 and std positive, found {source.crop} and {source.std}")

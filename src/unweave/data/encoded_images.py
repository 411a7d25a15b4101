"""Images with the distributions of their latents: a task reads the latents, an exam the images."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.data import Raw
from unweave.data.in_memory import Resident
from unweave.data.latents import Latents


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images that an autoencoder has encoded once, so without augmentation.

    Args:
        images: The images as bytes.
        latents: The mean and the deviation of the latents of each.
        autoencoder: SHA-256 of the weights of the autoencoder.

    Raises:
        ValueError: If the images are cropped or mirrored at random.
    """

    images: Resident
    latents: Latents
    autoencoder: str

    def __post_init__(self) -> None:
        refuse_random_images(self.images)

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The labels of the images."""
        return self.images.labels

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the images."""
        return self.images.names

    def __len__(self) -> int:
        return len(self.images)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yields mean and deviation of the examples at the positions of each index tensor."""
        return self.latents.stream(order)

    def digest(self) -> str:
        """SHA-256 of the digests of images and autoencoder; other machines round the latents otherwise."""
        return hashlib.sha256(f"{self.images.digest()}:{self.autoencoder}".encode()).hexdigest()

    def to(self, device: torch.device | str) -> "EncodedImages":
        """The same set; the latents are on the device, and the images stay where an exam finds them."""
        return replace(self, latents=self.latents.to(device))


def refuse_random_images(images: Resident) -> None:
    """Raises if images are cropped or mirrored at random, because each is encoded once."""
    if images.crop or images.flip:
        raise ValueError(
            "latents are made of each image once, found images that are cropped or mirrored at random: "
            "set data.augment = false"
        )

r"""Images to latents and back, with the `AutoencoderKL` of a pipeline.

A latent is the autoencoder's own times its `scaling_factor`, as the denoiser of the pipeline sees it. An
image has a distribution of latents, :math:`N(\mu, \sigma^2)`: both are computed once, and a task draws from
them. Needs the extra `unweave[diffusion]`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Shaped, UInt8
from torch import FloatTensor, Tensor, nn

from unweave.data.in_memory import Resident
from unweave.data.latents import Latents
from unweave.errors import Failed
from unweave.tasks.diffusion.components import read_component
from unweave.tasks.diffusion.sample import to_bytes

AT_ONCE, PIXELS = 16, 512 * 512
"""The largest number of images that are encoded or decoded together, and of their pixels in all."""


def read_autoencoder(folder: Path) -> AutoencoderKL:
    """Reads the autoencoder of a pipeline from its folder.

    Raises:
        ValueError: If a file is missing, sharded, truncated or unsupported.
    """
    return read_component(folder, lambda settings: AutoencoderKL(**settings))


@contextmanager
def move_to(device: str, autoencoder: AutoencoderKL) -> Iterator[None]:
    """Moves an autoencoder to a device, and at the end to the CPU, where a pipeline has its models."""
    nn.Module.to(autoencoder, device)
    try:
        yield
    finally:
        nn.Module.to(autoencoder, "cpu")


@torch.no_grad()
def encode(
    autoencoder: AutoencoderKL, images: UInt8[Tensor, "n channel height width"]
) -> tuple[Float[Tensor, "n latent h w"], Float[Tensor, "n latent h w"]]:
    """The mean and the standard deviation of the latents of images, on the CPU.

    Raises:
        ValueError: If the images do not have the size or the channels of the autoencoder.
        Failed: If a latent is not finite.
    """
    refuse_other_images(autoencoder, images)
    weight, scale = next(autoencoder.parameters()), float(autoencoder.config["scaling_factor"])
    moments: list[tuple[Tensor, Tensor]] = []
    height, width = images.shape[2:]
    for chunk in images.split(count_at_once(height * width)):
        posterior = autoencoder.encode(chunk.to(weight) / 127.5 - 1, return_dict=False)[0]
        moments.append((scale * posterior.mean.float().cpu(), scale * posterior.std.float().cpu()))
    mean, deviation = (torch.cat(each) for each in zip(*moments, strict=True))
    if not bool(mean.isfinite().all() and deviation.isfinite().all()):
        raise Failed("a latent is not finite: the weights of the autoencoder, or an image, can't be used")
    return mean, deviation


@torch.no_grad()
def decode(
    autoencoder: AutoencoderKL, latents: Float[Tensor, "n latent h w"], *, rounded: bool = True
) -> Shaped[Tensor, "n channel height width"]:
    """The images of latents, on the CPU: bytes, or numbers around [-1, 1]."""
    weight, scale = next(autoencoder.parameters()), float(autoencoder.config["scaling_factor"])
    pixels = latents.shape[2] * latents.shape[3] * factor_of(autoencoder) ** 2
    chunks = [
        autoencoder.decode(cast(FloatTensor, chunk.to(weight) / scale), return_dict=False)[0].float().cpu()
        for chunk in latents.split(count_at_once(pixels))
    ]
    images = torch.cat(chunks)
    return to_bytes(images) if rounded else images


def decode_finite(
    autoencoder: AutoencoderKL, latents: Float[Tensor, "n latent h w"]
) -> Float[Tensor, "n channel height width"]:
    """The images of latents as numbers around [-1, 1], on the CPU.

    Raises:
        Failed: If one is not finite.
    """
    images = decode(autoencoder, latents, rounded=False)
    if not bool(images.isfinite().all()):
        raise Failed("a decoded image is not finite: the autoencoder may need another number type")
    return images


def encode_images(autoencoder: AutoencoderKL, images: Resident) -> Latents:
    """The latents of a set of images, with their labels and names."""
    mean, deviation = encode(autoencoder, images.inputs)
    return Latents(mean, deviation, images.labels, images.names)


def count_at_once(pixels: int) -> int:
    """The number of images to encode or decode at once, each of `pixels` pixels."""
    return max(1, min(AT_ONCE, PIXELS // pixels))


def factor_of(autoencoder: AutoencoderKL) -> int:
    """The number of pixels along one side of a latent."""
    return 2 ** (len(cast(list[int], autoencoder.config["block_out_channels"])) - 1)


def image_shape_of(autoencoder: AutoencoderKL, latent: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels, height and width of the images whose latents have a shape."""
    factor, (_, height, width) = factor_of(autoencoder), latent
    return int(autoencoder.config["in_channels"]), factor * height, factor * width


def refuse_other_images(autoencoder: AutoencoderKL, images: Tensor) -> None:
    """Raises if an autoencoder can't encode images of this shape."""
    channels, factor = int(autoencoder.config["in_channels"]), factor_of(autoencoder)
    if images.shape[1] != channels or images.shape[2] % factor or images.shape[3] % factor:
        raise ValueError(
            f"the autoencoder takes images of {channels} channels whose sides are multiples of {factor}, "
            f"found [channel, height, width] = {list(images.shape[1:])}"
        )

"""Images without noise; noise, pixels and latents that are drawn for an example by its id and a key."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.data import Raw
from unweave.data.keyed_draws import normal, uniform

DRAWN = 3
"""The number of draws for an example before its noise: time, dropping, counterfactual."""


def keyed_noise(ids: Int[Tensor, " batch"], key: int, like: Tensor, number: int) -> Tensor:
    """The noise number `number` of each example, in the shape and type of `like`."""
    size = math.prod(like.shape[1:])
    return normal(uniform(ids, key, size, first=DRAWN + number * size)).to(like.dtype).view_as(like)


def keyed_pixels(ids: Int[Tensor, " batch"], key: int, like: Tensor) -> Tensor:
    """Uniform pixels in [-1, 1] for each example, in the shape and type of `like`."""
    size = math.prod(like.shape[1:])
    return (2 * uniform(ids, key, size, first=DRAWN + 2 * size) - 1).to(like.dtype).view_as(like)


def keyed_latents(raw: Raw, key: int) -> Float[Tensor, "batch channel height width"]:
    """One latent of each example, from its distribution; an example that is one latent stays unchanged.

    Raises:
        ValueError: If an example is neither the mean and deviation of a latent, nor a latent.
    """
    fields = list(raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs)
    if len(fields) == 1 and fields[0].ndim == 4 and fields[0].is_floating_point():
        return fields[0]
    if len(fields) != 2 or any(field.ndim != 4 or not field.is_floating_point() for field in fields):
        shapes = [f"{field.dtype} {list(field.shape[1:])}" for field in fields]
        raise ValueError(
            "an example must be the mean and the deviation of a latent [channel, height, width], found "
            f"{', '.join(shapes)}: encode the images first"
        )
    mean, deviation = fields
    return mean + deviation * keyed_noise(raw.ids, key, mean, 3)


def images(raw: Raw) -> Float[Tensor, "batch channel height width"]:
    """The images: bytes become numbers in [-1, 1]; floats stay unchanged.

    Raises:
        ValueError: If an example is not one image.
    """
    fields = list(raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs)
    if len(fields) != 1 or fields[0].ndim != 4:
        shapes = [list(field.shape[1:]) for field in fields]
        raise ValueError(f"an example must be one image [channel, height, width], found {shapes}")
    (pixels,) = fields
    if pixels.dtype == torch.uint8:
        return pixels.float() / 127.5 - 1
    if not pixels.is_floating_point():
        raise ValueError(f"images must be bytes or floats in [-1, 1], found {pixels.dtype}")
    return pixels

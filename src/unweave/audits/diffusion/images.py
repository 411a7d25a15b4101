"""Checks generated images: every figure takes bytes that were never rescaled.

One published evaluation casts images in [-1, 1] to bytes, which makes them nearly binary; another stretches
each image to the full range. Bytes of one resolution rule out both.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor

Images = UInt8[Tensor, "n channel height width"]
Shape = tuple[int, int, int]  # channel, height, width


def check_images(images: Tensor, shape: Shape | None = None, *, fewest: int = 1) -> Images:
    """Returns the images, checked.

    Args:
        images: uint8 images with shape [n, channel, height, width].
        shape: The expected shape of each image; any if None.
        fewest: The smallest number of images.

    Raises:
        ValueError: If the images are different.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        advice = (
            "round what lies in [0, 1] times 255" if images.is_floating_point() else "add the missing axes"
        )
        raise ValueError(
            f"images must be uint8 [n, channel, height, width], found {images.dtype} with shape "
            f"{list(images.shape)}: {advice}"
        )
    if shape is not None and tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"images must have shape [n, {', '.join(map(str, shape))}], found {list(images.shape)}"
        )
    if len(images) < fewest:
        raise ValueError(f"expected at least {fewest} images, found {len(images)}")
    return images

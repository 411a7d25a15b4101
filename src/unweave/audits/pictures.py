"""Pictures of arrays as PNG in data URIs, which a record can hold and a page shows without a second file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

SIDE = 32
"""The largest side in pixels of an image that is kept as levels."""


@dataclass(frozen=True)
class Pictures:
    """A few pictures side by side.

    Args:
        title: What they are of, as in a caption.
        images: Each picture by what it shows, as a data URI.
    """

    title: str
    images: Mapping[str, str]


def png_uri(pixels: UInt8[np.ndarray, "height width channel"]) -> str:
    """A PNG as a data URI; of three channels, or of four with opacity."""
    from matplotlib.image import imsave  # takes time to import

    file = io.BytesIO()
    imsave(file, pixels, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def png_of_levels(levels: Sequence[float], shape: Sequence[int]) -> str:
    """The PNG of an image from its levels.

    Args:
        levels: From 0 to 255, in the order [channel, height, width].
        shape: Channels (1 or 3), height and width.
    """
    image = np.asarray(levels, dtype=np.uint8).reshape(shape)
    return png_uri(np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3)))


def levels_of(image: Tensor, darkest: float, lightest: float) -> tuple[list[float], list[float]]:
    """The levels of an image from 0 to 255, made small, and its shape."""
    height, width = (min(side, SIDE) for side in image.shape[1:])
    small = functional.adaptive_avg_pool2d(image[None].float(), (height, width))[0]
    levels = ((small - darkest) / (lightest - darkest)).clamp(0, 1).mul(255).round()
    return levels.flatten().tolist(), [float(side) for side in small.shape]

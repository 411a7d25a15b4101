"""Grey shapes drawn in colours and styles, as small RGB images."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (230, 30, 30),
    "green": (30, 200, 40),
    "blue": (50, 70, 255),
    "yellow": (240, 220, 30),
    "purple": (200, 40, 220),
    "white": (245, 245, 245),
}
"""The colours as red, green and blue, from 0 to 255."""

SHARPNESS = 9.0
"""The slope of the edge of a shape, per unit of its grey level."""

Grey = Float[Tensor, "n 1 height width"]


def plain(shape: Grey) -> Grey:
    """The shape itself."""
    return sharpen(shape, 0.5)


def bold(shape: Grey) -> Grey:
    """The shape, half a pixel wider on every side."""
    wide = functional.max_pool2d(shape, 3, stride=1, padding=1)
    return sharpen((shape + wide) / 2, 0.5)


def draw_outline(shape: Grey) -> Grey:
    """The edge of the shape."""
    full = plain(shape)
    return full + functional.max_pool2d(-full, 3, stride=1, padding=1)


def draw_frame(shape: Grey) -> Grey:
    """The shape in a frame of one pixel."""
    return functional.pad(plain(shape)[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=1.0)


STYLES: Mapping[str, Callable[[Grey], Grey]] = {
    "plain": plain,
    "bold": bold,
    "outlined": draw_outline,
    "framed": draw_frame,
}
"""From grey levels of shapes to the share of colour in each pixel; both are in [0, 1]."""


def sharpen(levels: Grey, threshold: float) -> Grey:
    """Moves grey levels to black or white, on their side of a threshold."""
    return torch.sigmoid(SHARPNESS * (levels - threshold))


def paint(
    shapes: Grey,
    colours: Int64[Tensor, " n"],
    styles: Int64[Tensor, " n"],
    *,
    palette: Sequence[str] = tuple(COLOURS),
    manners: Sequence[str] = tuple(STYLES),
) -> UInt8[Tensor, "n 3 height width"]:
    """Paints each shape on black.

    Args:
        shapes: The grey levels of the shapes, in [0, 1].
        colours: The colour of each, as a place in `palette`.
        styles: The style of each, as a place in `manners`.
        palette: Names of `COLOURS`.
        manners: Names of `STYLES`.
    """
    levels = torch.stack([STYLES[name](shapes) for name in manners])[styles, torch.arange(len(shapes))]
    paints = torch.tensor([COLOURS[name] for name in palette], dtype=levels.dtype)[colours]
    return (levels * paints[:, :, None, None]).round().clamp(0, 255).to(torch.uint8)


def resize(images: UInt8[Tensor, "n 1 h w"], size: int) -> Grey:
    """Grey levels in [0, 1] of square images, at another size."""
    levels = functional.interpolate(images.float() / 255, (size, size), mode="bicubic", antialias=True)
    return levels.clamp(0, 1)

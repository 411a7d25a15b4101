"""A contact sheet: the first images of every class, as a picture for a page."""

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from unweave.audits.pictures import png_uri

ACROSS = 6
"""The number of images of a class."""

MARK = (213, 94, 0, 255)
"""The frame of a forgotten class: red, green, blue, opacity."""


def sheet(images: Mapping[int, Tensor], forgotten: Collection[int]) -> str:
    """Draws a row per class with its first images, as PNG; rows of forgotten classes have a frame.

    Args:
        images: uint8 images [n, channel, height, width] by class, grey or RGB.
        forgotten: The forgotten classes.
    """
    rows = [row(images[label][:ACROSS], framed=label in forgotten) for label in sorted(images)]
    return png_uri(np.concatenate(rows))


def row(images: Tensor, *, framed: bool) -> UInt8[np.ndarray, "height width 4"]:
    """Images side by side; gaps are transparent, or have the colour of the frame."""
    pixels = images.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    n, height, width, _ = pixels.shape
    gap = max(1, height // 8)
    canvas = np.zeros((height + 2 * gap, gap + n * (width + gap), 4), dtype=np.uint8)
    canvas[:] = MARK if framed else 0
    for i, image in enumerate(pixels):
        left = gap + i * (width + gap)
        canvas[gap : gap + height, left : left + width] = np.dstack([image, np.full(image.shape[:2], 255)])
    return canvas

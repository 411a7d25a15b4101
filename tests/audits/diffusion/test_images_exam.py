"""Contact sheets: a row per class, and a frame around the forgotten ones."""

import base64
import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from unweave.audits.diffusion.images_exam import ACROSS, MARK, draw_sheet

SIZE = 8


def pixels(picture: str) -> np.ndarray:
    """A picture of a page as bytes [height, width, 4]."""
    return (255 * imread(io.BytesIO(base64.b64decode(picture.partition(",")[2])))).round().astype(int)


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_a_row_per_class_has_its_first_images_within_gaps(channels: int) -> None:
    shades = torch.arange(3 * 9).mul(8).view(3, 9, 1, 1, 1).to(torch.uint8)
    images = {label: shades[label].expand(9, channels, SIZE, SIZE) for label in range(3)}
    sheet = pixels(draw_sheet(images, forgotten=(1,)))
    step = SIZE + 1
    assert sheet.shape == (3 * (SIZE + 2), 1 + ACROSS * step, 4)
    for label in range(3):
        top = label * (SIZE + 2)
        for i in range(ACROSS):
            image = sheet[top + 1 : top + 1 + SIZE, 1 + i * step : 1 + i * step + SIZE]
            assert (image == [*[8 * (9 * label + i)] * 3, 255]).all()
        border = np.concatenate([sheet[top], sheet[top + SIZE + 1], *sheet[top : top + SIZE + 2, ::step]])
        assert (border == (MARK if label == 1 else (0, 0, 0, 0))).all()

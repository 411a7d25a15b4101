import pytest
import torch

from for_each import for_each
from unweave.audits.diffusion.images import check_images

BYTES = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)


def test_bytes_of_the_right_shape_come_back_as_they_are():
    assert check_images(BYTES) is BYTES
    assert check_images(BYTES, (1, 8, 8), fewest=3) is BYTES


@for_each(
    ("images", "expected"),
    [
        (
            BYTES.float(),
            "must be uint8 .*found torch.float32 with shape .3, 1, 8, 8.: round what lies in .0, 1. times",
        ),
        (BYTES.long(), "found torch.int64"),
        (BYTES[:, 0], "found torch.uint8 with shape .3, 8, 8.: add the missing axes"),
        (torch.zeros(3, 1, 16, 16, dtype=torch.uint8), "must have shape .n, 1, 8, 8., found .3, 1, 16, 16."),
        (torch.zeros(3, 3, 8, 8, dtype=torch.uint8), "must have shape .n, 1, 8, 8., found .3, 3, 8, 8."),
        (BYTES[:2], "expected at least 3 images, found 2"),
    ],
)
def test_anything_else_is_refused(images, expected):
    with pytest.raises(ValueError, match=expected):
        check_images(images, (1, 8, 8), fewest=3)

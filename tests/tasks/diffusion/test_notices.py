"""Notices of other libraries that no user of unweave can act on."""

import logging

from for_each import for_each
from unweave.tasks.diffusion import Diffusion


@for_each(
    ("text", "is_shown"),
    [
        ("`CLIPImageProcessor` requires torchvision (not installed); falling back to `CLIP`", False),
        ("`SiglipImageProcessor` requires torchvision (not installed); falling back to `Siglip`", False),
        ("Disabling PyTorch because PyTorch >= 2.6 is required but found 2.5", True),
    ],
)
def test_only_the_notice_of_an_image_processor_is_silenced(text: str, is_shown: bool) -> None:
    assert Diffusion.family == "diffusion"  # its package has been imported
    logger = logging.getLogger("transformers.utils.import_utils")
    record = logger.makeRecord(logger.name, logging.WARNING, __file__, 1, text, (), None)
    assert bool(logger.filter(record)) == is_shown

from dataclasses import replace

import pytest
import torch

from unweave.data.encoded_images import EncodedImages
from unweave.data.in_memory import Resident
from unweave.data.latents import Latents


def encoded() -> EncodedImages:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 0])
    images = Resident(torch.randint(256, (3, 3, 8, 8), generator=generator).byte(), labels)
    mean = torch.randn(3, 4, 2, 2, generator=generator)
    return EncodedImages(images, Latents(mean, torch.ones_like(mean), labels), "autoencoder")


def test_the_digest_is_that_of_the_images_and_the_autoencoder_not_of_the_rounding_of_latents():
    images = encoded()
    rounded_images = replace(images, latents=replace(images.latents, mean=images.latents.mean * (1 + 1e-6)))
    assert images.digest() == rounded_images.digest() == images.to("cpu").digest()
    other_images = [
        replace(images, autoencoder="another"),
        replace(images, images=replace(images.images, inputs=images.images.inputs + 1)),
    ]
    assert len({images.digest(), *(each.digest() for each in other_images)}) == 3


def test_images_that_change_at_random_are_refused():
    images = encoded()
    with pytest.raises(ValueError, match=r"mirrored at random: set data\.augment = false"):
        replace(images, images=replace(images.images, flip=True))

import numpy as np
import pytest
import torch

from audits.diffusion.toys import HELD_OUT, digits_recogniser
from unweave.audits.diffusion.drift import drift
from unweave.audits.diffusion.recogniser import Recogniser

IMAGES = HELD_OUT.inputs[:60]


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return digits_recogniser()


def measure_drift(images: torch.Tensor, recogniser: Recogniser, original: torch.Tensor = IMAGES):
    return drift(images, original, recogniser)


def test_equal_images_have_not_moved(recogniser):
    distances = measure_drift(IMAGES, recogniser)
    assert distances == {"drift_pixel": 0, "drift_feature": 0}


def test_it_grows_with_the_change_and_does_not_depend_on_the_order_of_the_pairs(recogniser):
    small_shift, large_shift = (
        (IMAGES + 0).clamp(max=255 - step) + step
        for step in (torch.tensor(5).byte(), torch.tensor(60).byte())
    )
    small_drift, large_drift = measure_drift(small_shift, recogniser), measure_drift(large_shift, recogniser)
    assert (
        0 < small_drift["drift_pixel"] < large_drift["drift_pixel"]
        and 0 < small_drift["drift_feature"] < large_drift["drift_feature"]
    )
    flipped_drift = measure_drift(small_shift.flip(0), recogniser, IMAGES.flip(0))
    assert flipped_drift["drift_feature"] == pytest.approx(small_drift["drift_feature"], abs=1e-6)


def test_by_hand_in_grey_levels_where_bytes_would_wrap_around(recogniser):
    black_images, grey_images = (
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        torch.full((4, 1, 8, 8), 200, dtype=torch.uint8),
    )
    grey_images[0] = 0
    distances = measure_drift(black_images, recogniser, grey_images)
    assert distances["drift_pixel"] == 150
    other_images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    other_images[:, 0, 0, 0] = 8
    assert measure_drift(black_images, recogniser, other_images)["drift_pixel"] == 1


def test_features_are_compared_per_image(recogniser):
    other_images = HELD_OUT.inputs[60:120]
    difference = recogniser(IMAGES).features - recogniser(other_images).features
    expected = np.mean([np.sqrt(np.mean(row**2)) for row in difference])
    assert measure_drift(IMAGES, recogniser, other_images)["drift_feature"] == pytest.approx(
        expected, abs=1e-12
    )


def test_images_without_a_partner_are_refused(recogniser):
    with pytest.raises(ValueError, match="an image of the original for each, found 60 and 59"):
        measure_drift(IMAGES, recogniser, IMAGES[1:])

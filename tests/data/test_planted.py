"""Planted examples: exactly the chosen ones change, and exactly as they should."""

import pytest
import torch

from for_each import for_each
from unweave.bench.setup import Data, Plant
from unweave.bench.split_data import make_split
from unweave.data.datasets import load
from unweave.data.in_memory import Resident
from unweave.data.planted import plant_backdoor, plant_canaries, plant_swap, stamp

TRAIN = load("digits")[0]
assert isinstance(TRAIN, Resident)
BYTES = Resident(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2)


def is_unchanged(source: Resident, places: torch.Tensor) -> bool:
    """Whether every other example is as it was."""
    is_other = torch.ones(len(source), dtype=torch.bool)
    is_other[places] = False
    return torch.equal(source.inputs[is_other], TRAIN.inputs[is_other]) and torch.equal(
        source.labels[is_other], TRAIN.labels[is_other]
    )


def test_a_square_is_in_the_corner_alone() -> None:
    images = torch.arange(32.0).view(2, 1, 4, 4)
    stamped_images = stamp(images, 2, 99.0)
    assert stamped_images[0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 99, 99], [12, 13, 99, 99]]
    assert float(images.max()) == 31


def test_a_backdoor_marks_other_classes_and_teaches_the_target() -> None:
    result = plant_backdoor(TRAIN, 0.1, target=4, size=3, known=0.5, seed=0)
    places = result.places
    assert len(places) == len(places.unique()) == 144 and result.known.tolist() == places[:72].tolist()
    assert (TRAIN.labels[places] != 4).all() and (result.source.labels[places] == 4).all()
    corner = result.source.inputs[places].view(-1, 8, 8)
    before = TRAIN.inputs[places].view(-1, 8, 8).clone()
    before[:, -3:, -3:] = float(TRAIN.inputs.max())
    assert torch.equal(corner, before) and is_unchanged(result.source, places)
    assert result.source.digest() != TRAIN.digest()


def test_a_swap_exchanges_the_labels_of_two_classes_and_no_pixel() -> None:
    result = plant_swap(TRAIN, 0.5, classes=(3, 8), known=1.0, seed=0)
    before, after = TRAIN.labels[result.places], result.source.labels[result.places]
    assert set(before.tolist()) == {3, 8} and (before + after == 11).all()
    assert torch.equal(result.source.inputs, TRAIN.inputs) and is_unchanged(result.source, result.places)
    either = int(((TRAIN.labels == 3) | (TRAIN.labels == 8)).sum())
    assert len(result.places) == round(either / 2) == result.n_known


def test_canaries_are_the_clean_inputs_and_their_noise() -> None:
    result = plant_canaries(TRAIN, 0.1, sigma=0.7, known=1.0, seed=0)
    assert result.noise is not None
    torch.testing.assert_close(
        result.source.inputs[result.places], TRAIN.inputs[result.places] + result.noise
    )
    assert float(result.noise.std()) == pytest.approx(0.7, abs=0.02)
    assert torch.equal(result.source.labels, TRAIN.labels) and is_unchanged(result.source, result.places)


def test_the_known_part_of_a_recipe_is_its_forget_set() -> None:
    data = Data("digits", seed=5, forget="planted", plant=Plant("backdoor", known=0.25))
    split, second = make_split(data), make_split(data)
    assert len(split.forget) == 36 and (split.train.labels[split.forget] == 0).all()
    assert split.digest() == second.digest()
    other = make_split(Data("digits", seed=6, forget="planted", plant=Plant("backdoor", known=0.25)))
    assert other.forget.tolist() != split.forget.tolist()


def test_images_as_bytes_get_their_brightest_square_and_no_noise() -> None:
    result = plant_backdoor(BYTES, 0.2, target=1, size=2, known=1.0, seed=0)
    assert (result.source.inputs[result.places, 0, -2:, -2:] == 255).all()
    with pytest.raises(ValueError, match="canaries need inputs of floats, found images as bytes"):
        plant_canaries(BYTES, 0.2, sigma=1.0, known=1.0, seed=0)


@for_each(
    ("make", "message"),
    [
        (lambda: stamp(torch.zeros(1, 1, 4, 4), 4, 1.0), "smaller than the image of 4 x 4, found 4"),
        (
            lambda: plant_backdoor(BYTES, 0.9, target=0, size=2, known=1.0, seed=0),
            "expected 1 to 10 examples to plant, those with another label than 0, found 18",
        ),
        (
            lambda: plant_backdoor(
                Resident(torch.zeros(9, 5), torch.arange(9)), 0.2, target=0, size=2, known=1.0, seed=0
            ),
            r"a backdoor needs images .* found inputs of shape \[5\]",
        ),
        (
            lambda: plant_backdoor(TRAIN, 0.1, target=10, size=2, known=1.0, seed=0),
            "no example has label 10: choose one of 0, 1, 2, 3, 4, 5, 6, 7, ...",
        ),
        (
            lambda: plant_swap(TRAIN, 0.1, classes=(3, -1), known=1.0, seed=0),
            "no example has label -1",
        ),
        (lambda: Plant("swap", classes=(3, 3)), r"classes must be the two labels of a swap, found \[3, 3\]"),
        (lambda: Plant("canaries", sigma=0.0), "sigma must be positive, found 0.0"),
        (lambda: Plant(known=0.0), r"known must be a fraction in \(0, 1\], found 0.0"),
        (lambda: Plant(fraction=1.0), r"fraction must be in \(0, 1\), found 1.0"),
        (lambda: Data("digits", forget="planted"), "planted examples go with forget = 'planted', found"),
        (lambda: Data("digits", plant=Plant("swap")), "found forget = 'random' with plant.kind = 'swap'"),
        (
            lambda: Data("digits", noise=0.2, forget="planted", plant=Plant("swap")),
            "planted examples go with noise = 0, found 0.2",
        ),
    ],
)
def test_what_cannot_be_planted_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()

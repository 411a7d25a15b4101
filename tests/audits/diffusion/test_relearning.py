from collections.abc import Iterator

import pytest
import torch

from audits.diffusion.toys import TRAIN, Toy, truly
from unweave.audits.diffusion.relearning import Relearning, measure_relearning
from unweave.audits.diffusion.sweeps import Generate
from unweave.audits.score import Share

THREES = TRAIN.inputs[TRAIN.labels == 3]


def student(pace: float):
    """After s steps on n images it shows the class at s n pace of every twenty seeds."""

    def relearn(images: torch.Tensor) -> Iterator[tuple[int, Generate]]:
        for steps in (0, 10, 20, 40):
            known = steps * len(images) * pace
            yield steps, Toy(shows=lambda seed, guidance, known=known: seed % 20 < known)

    return relearn


def measure_student(pace: float, **settings):
    return measure_relearning(
        student(pace),
        THREES,
        3,
        truly(3),
        range(40),
        guidance=1.0,
        generator=torch.Generator().manual_seed(0),
        **settings,
    )


def test_more_images_bring_a_class_back_sooner_and_residue_sooner_than_none():
    residue, gone = measure_student(0.05), measure_student(0.01)
    assert set(residue) == {10, 100}
    assert residue[10].checks[0] == (0, Share(0, 40))
    assert (residue[10].steps(), residue[100].steps()) == (20, 10)
    assert (gone[10].steps(), gone[100].steps()) == (float("inf"), 10)


def test_steps_by_hand():
    curve = Relearning(((0, Share(0, 10)), (5, Share(4, 10)), (9, Share(5, 10)), (12, Share(9, 10))))
    assert (curve.steps(), curve.steps(0.4), curve.steps(0.95)) == (9, 5, float("inf"))


def test_the_images_are_chosen_once_and_the_smaller_set_is_part_of_the_larger():
    given = []

    def relearn(images):
        given.append({image.numpy().tobytes() for image in images})
        return iter(())

    for _ in range(2):
        measure_relearning(
            relearn, THREES, 3, truly(3), (1,), guidance=1.0, generator=torch.Generator().manual_seed(5)
        )
    assert given[:2] == given[2:]
    assert given[0] < given[1] and len(given[1]) == 100


def test_too_few_images_to_learn_from_are_refused():
    with pytest.raises(ValueError, match=f"expected at least 500 images, found {len(THREES)}"):
        measure_student(0.01, sizes=(10, 500))

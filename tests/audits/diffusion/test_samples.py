from dataclasses import replace

import numpy as np
import pytest

from audits.diffusion.toys import HELD_OUT, TRAIN, digits_recogniser, samples
from for_each import for_each
from unweave.audits.diffusion.samples import recognise


def test_conditions_are_forgotten_or_retained():
    result = samples(0, forgotten=(1, 3))
    assert (result.forgotten, result.retained_conditions, result.n_classes) == ((1, 3), (0, 2), 4)
    assert [len(group) for group in result.groups((0, 2))] == [100, 100]


@for_each(
    ("change", "expected"),
    [
        (
            {"forgotten": (7,)},
            "forgotten must name some but not all of the conditions .0, 1, 2, 3., found .7.",
        ),
        ({"forgotten": ()}, "some but not all"),
        ({"forgotten": (0, 1, 2, 3)}, "some but not all"),
        ({"features": {0: np.zeros((100, 6))}}, "expected features of .0, 1, 2, 3., found .0."),
        ({"real": {1: np.zeros((5, 6))}}, "real images of every retained class, found none of .2, 3."),
        (
            {"features": {**samples(0).features, 2: np.zeros((99, 6))}},
            "condition 2 needs as many logits as features, found .100, 99.",
        ),
        (
            {"logits": {key: rows[:, :3] for key, rows in samples(0).logits.items()}},
            "conditions must be classes in 0..2, found 3",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(change, expected):
    with pytest.raises(ValueError, match=expected):
        replace(samples(0), **change)


def test_real_images_of_forgotten_classes_are_not_needed():
    assert replace(
        samples(0), real={label: samples(0).real[label] for label in (1, 2, 3)}
    ).retained_conditions == (
        1,
        2,
        3,
    )


def test_images_are_seen_by_one_recogniser():
    recogniser = digits_recogniser()
    images = {label: TRAIN.inputs[TRAIN.labels == label][:30] for label in range(10)}
    real = {label: recogniser(HELD_OUT.inputs[HELD_OUT.labels == label]) for label in range(10)}
    recognised_samples = recognise(recogniser, images, real, forgotten=(4,))
    assert recognised_samples.space == recogniser.space
    assert (recognised_samples.predicted_classes(7) == recogniser(images[7]).classes).all()
    assert (recognised_samples.features[2] == recogniser(images[2]).features).all()
    assert recognised_samples.real[5] is real[5].features

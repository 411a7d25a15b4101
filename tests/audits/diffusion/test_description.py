import numpy as np
import pytest
import torch

from audits.diffusion.toys import TRAIN, digits_recogniser, one_of, samples
from unweave.audits.diffusion import recognition
from unweave.audits.diffusion.description import describe
from unweave.audits.diffusion.metrics import measure_generation
from unweave.audits.diffusion.samples import recognise


def test_every_figure_is_the_metrics_own_inside_its_interval():
    model_samples = samples(1)
    values, figures = measure_generation(model_samples), describe(model_samples, rng=np.random.default_rng(0))
    assert 100 - figures["shown, %"]["0"][0] == pytest.approx(values["ua"])
    assert figures["shown, %"]["2"][0] == 100 * recognition.hit_rate(model_samples, 2).value
    for name, metric in (("probability", "p_forget"), ("entropy", "entropy")):
        value, low, high = figures["forgotten"]["0"][name]
        assert value == pytest.approx(values[metric]) and low < value < high
    assert figures["kid"][0] == values["kid"]


def test_digits_that_became_eights_are_forgotten_and_stand_out_by_their_spread():

    recogniser = digits_recogniser()
    # one to be generated, one to be real
    halves = {label: TRAIN.inputs[TRAIN.labels == label].split(70)[:2] for label in range(10)}
    images = {label: first for label, (first, _) in halves.items()}
    real = {label: recogniser(second) for label, (_, second) in halves.items()}
    original = recognise(recogniser, images, real, forgotten=(4,))
    eights = torch.stack([one_of(8, seed) for seed in range(70)])
    remapped_samples = recognise(recogniser, {**images, 4: eights}, real, forgotten=(4,))
    mixed_digits = torch.stack([one_of(seed % 10, seed) for seed in range(80) if seed % 10 != 4][:70])
    retrained = recognise(recogniser, {**images, 4: mixed_digits}, real, forgotten=(4,))
    before, after = measure_generation(original, retrained), measure_generation(remapped_samples, retrained)
    assert before["ua"] < 10 < 90 < after["ua"]
    assert after["effective"] < 1.5 < 6 < measure_generation(retrained)["effective"]
    assert after["class_tv"] > 0.7 and after["kid_forget"] > 0.1
    assert after["kid"] == before["kid"]
    description = describe(remapped_samples, rng=np.random.default_rng(0))
    assert description["kid"][1] < 0.05 and description["kid"][0] < 0.05
    assert np.argmax(description["forgotten"]["4"]["turns into, %"]) == 8

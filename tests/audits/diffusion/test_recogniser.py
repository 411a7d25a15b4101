import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from audits.diffusion.toys import HELD_OUT, HOW, TRAIN, digits_recogniser
from unweave.audits.diffusion.recogniser import Recogniser, make_recogniser, train_recogniser


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return digits_recogniser()


def normalise(images: torch.Tensor) -> torch.Tensor:
    return (images / 255 - TRAIN.mean[0]) / TRAIN.std[0]


def test_its_error_is_that_on_all_real_held_out_images(recogniser):
    with torch.no_grad():
        n_wrong = (recogniser.model(normalise(HELD_OUT.inputs)).argmax(1) != HELD_OUT.labels).sum()
    assert (recogniser.error.successes, recogniser.error.n) == (int(n_wrong), 360)
    assert recogniser.error.high < 0.1
    assert (recogniser.confusion.sum(axis=1) == torch.bincount(HELD_OUT.labels).numpy()).all()


def test_features_are_what_the_last_layer_gets_in_units_of_their_size_on_training_images(recogniser):
    recognition = recogniser(TRAIN.inputs)
    assert np.square(recognition.features).mean() == pytest.approx(1, abs=1e-12)
    with torch.no_grad():
        expected = recogniser.model[:-1](normalise(TRAIN.inputs)).double().numpy()
    assert recognition.features * recogniser.scale == pytest.approx(expected, abs=1e-4)
    last = recogniser.model[-1]
    logits = expected @ last.weight.detach().double().numpy().T + last.bias.detach().double().numpy()
    assert recognition.logits == pytest.approx(logits, abs=1e-4)


def test_an_image_is_seen_alike_alone_and_among_others_and_the_model_is_left_as_it_was(recogniser):
    recogniser.model.train()
    batch, one = recogniser(HELD_OUT.inputs), recogniser(HELD_OUT.inputs[7:8])
    assert one.logits[0] == pytest.approx(batch.logits[7], abs=1e-5)
    assert recogniser.model.training
    assert all(not module._forward_pre_hooks for module in recogniser.model.modules())
    assert all(weight.grad is None for weight in recogniser.model.parameters())
    recogniser.model.eval()


def test_images_in_which_nothing_is_seen_are_refused():
    black_images = replace(TRAIN, inputs=torch.zeros_like(TRAIN.inputs), mean=(), std=())
    with pytest.raises(ValueError, match="must find features .*, found a root mean square of 0.0"):
        make_recogniser(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), black_images, HELD_OUT)


def test_the_digest_names_weights_and_normalisation(recogniser):
    twin = make_recogniser(copy.deepcopy(recogniser.model), TRAIN, HELD_OUT)
    assert twin.digest == recogniser.digest and twin.space == twin.digest[:12]
    other = copy.deepcopy(recogniser.model)
    with torch.no_grad():
        other[0].weight[0, 0, 0, 0] += 1e-3
    assert make_recogniser(other, TRAIN, HELD_OUT).digest != recogniser.digest


def test_a_cached_recogniser_is_read_again_and_another_training_is_another(tmp_path, recogniser):
    first = train_recogniser(TRAIN, HELD_OUT, how=HOW, cache=tmp_path)
    assert first.digest == recogniser.digest
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert train_recogniser(TRAIN, HELD_OUT, how=HOW, cache=tmp_path).digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == times
    assert len(times) == 1
    assert train_recogniser(TRAIN, HELD_OUT, how=HOW, cache=tmp_path, seed=1).digest != first.digest


def test_images_that_it_was_not_made_for_are_refused(recogniser):
    with pytest.raises(ValueError, match="must have shape .n, 1, 8, 8., found .2, 1, 28, 28."):
        recogniser(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="found torch.float32"):
        recogniser(HELD_OUT.inputs / 255)


def test_floats_are_no_real_images_to_train_on():
    from unweave.data.in_memory import Resident

    with pytest.raises(ValueError, match="images must be uint8"):
        train_recogniser(Resident(torch.zeros(20, 64), torch.arange(20) % 10), HELD_OUT, how=HOW)


def test_any_classifier_can_be_a_recogniser():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recognition = make_recogniser(model, TRAIN, HELD_OUT)(HELD_OUT.inputs)
    assert recognition.features.shape == (360, 64) and recognition.logits.shape == (360, 10)

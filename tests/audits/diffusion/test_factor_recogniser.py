from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from unweave.audits.classifier.logits import probabilities
from unweave.audits.diffusion.factor_recogniser import FactorRecogniser, fit_recogniser
from unweave.data.captioned_drawings import Drawings, factor_numbers
from unweave.descent.descend import Descent
from unweave.tasks.factors import Factors, join_values, split_values

DRAWINGS = Drawings(copies=2, limit=500)
DATA = DRAWINGS.draw_every_pair()
SHORT = Descent(lr=0.1, batch=64, steps=150, schedule="cosine", warmup=0.15)


@pytest.fixture(scope="module")
def recogniser() -> FactorRecogniser:
    return fit_recogniser(*DATA, DRAWINGS.names, how=SHORT, width=16, hidden=48)


def test_its_errors_are_counted_for_each_factor_on_all_held_out_images(recogniser):
    recognised_images, numbers_by_factor = (
        recogniser.recognise(DATA[1].images),
        factor_numbers(DATA[1], DRAWINGS.names),
    )
    for factor, numbers in numbers_by_factor.items():
        n_wrong = int((recognised_images.values(factor) != numbers.numpy()).sum())
        assert (recogniser.errors[factor].successes, recogniser.errors[factor].n) == (n_wrong, len(DATA[1]))
    assert recogniser.errors["colour"].value < 0.1 and recogniser.errors["object"].value < 0.4


def test_a_factor_is_read_from_its_own_logits(recogniser):
    recognised_images = recogniser.recognise(DATA[1].images)
    assert {factor: each.shape[1] for factor, each in recognised_images.logits.items()} == {
        "object": 10,
        "colour": 6,
        "style": 4,
    }
    p_blue = recognised_images.probability("colour", "blue")
    assert p_blue == pytest.approx(probabilities(recognised_images.logits["colour"])[:, 2])
    assert (recognised_images.shows("colour", "blue") == (recognised_images.values("colour") == 2)).all()
    assert np.square(recogniser.recognise(DATA[0].images).features).mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("factor", "value", "known"), [("colour", "pink", "red, green"), ("size", "big", "object, colour, style")]
)
def test_an_unknown_value_is_refused(recogniser, factor: str, value: str, known: str):
    with pytest.raises(ValueError, match=f"expected one of {known}"):
        recogniser.recognise(DATA[1].images[:2]).shows(factor, value)


def test_a_kept_recogniser_is_read_again(recogniser, tmp_path: Path):
    first = fit_recogniser(*DATA, DRAWINGS.names, how=SHORT, width=16, hidden=48, cache=tmp_path)
    assert first.digest == recogniser.digest
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    second = fit_recogniser(*DATA, DRAWINGS.names, how=SHORT, width=16, hidden=48, cache=tmp_path)
    assert second.digest == first.digest and len(times) == 1
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert replace(first, names={**first.names, "style": ("a", "b", "c", "d")}).digest != first.digest


def test_numbers_hold_the_values_of_all_factors():
    sizes = (10, 6, 4)
    values = [torch.randint(size, (50,)) for size in sizes]
    numbers = join_values(values, sizes)
    assert int(numbers.max()) < 240
    for parts, expected in zip(split_values(numbers, sizes), values, strict=True):
        assert torch.equal(parts, expected)
    # three, blue, outlined: 3 * 24 + 2 * 4 + 2
    assert join_values([torch.tensor([each]) for each in (3, 2, 2)], sizes).tolist() == [82]


def test_the_loss_is_the_sum_over_factors():
    task, output = Factors((3, 2)), torch.randn(4, 5)
    target = join_values([torch.tensor([0, 1, 2, 0]), torch.tensor([1, 0, 1, 1])], (3, 2))
    expected = cross_entropy(output[:, :3], torch.tensor([0, 1, 2, 0]), reduction="none")
    expected = expected + cross_entropy(output[:, 3:], torch.tensor([1, 0, 1, 1]), reduction="none")
    assert torch.allclose(task.loss(output, target), expected)
    other = torch.randn(4, 5)
    pairs = [(output[:, :3], other[:, :3]), (output[:, 3:], other[:, 3:])]
    divergences = [kl_div(o.log_softmax(1), r.softmax(1), reduction="none").sum(1) for o, r in pairs]
    assert torch.allclose(task.divergence(output, other), sum(divergences, torch.zeros(4)), atol=1e-6)

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, entropy

from audits.diffusion.toys import samples
from unweave.audits.classifier.logits import probabilities
from unweave.audits.diffusion import recognition
from unweave.audits.diffusion.samples import Samples


def turned_into(*classes: int, certainty: float = 20.0) -> Samples:
    """Samples whose condition 0 turns into these classes."""
    original = samples(0)
    logits = {**original.logits, 0: certainty * np.eye(4)[list(classes)]}
    return replace(original, logits=logits, features={**original.features, 0: np.zeros((len(classes), 6))})


def test_ua_and_ra_count_images_of_their_own_conditions():
    remap = turned_into(0, 1, 2, 2)
    assert recognition.ua(remap) == 75
    assert recognition.ra(turned_into(0, 0, 0, 0)) == recognition.ra(remap)
    hit_shares = [(remap.predicted_classes(condition) == condition).mean() for condition in (1, 2, 3)]
    assert [recognition.hit_rate(remap, condition).value for condition in (1, 2, 3)] == hit_shares
    assert recognition.ra(remap) == pytest.approx(100 * np.mean(hit_shares))


def test_shares_have_wilsons_interval():
    ours = recognition.unlearning_accuracy(turned_into(0, 1, 2, 2))
    theirs = binomtest(3, 4).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_several_forgotten_classes_are_counted_together():
    two_forgotten = samples(0, forgotten=(0, 2), turns=(0, 0.5, 0.5, 0))
    assert recognition.unlearning_accuracy(two_forgotten).n == 200
    n_wrong = (two_forgotten.predicted_classes(0) != 0).sum() + (
        two_forgotten.predicted_classes(2) != 2
    ).sum()
    assert recognition.ua(two_forgotten) == n_wrong / 2
    assert recognition.ra(two_forgotten) == 50 * sum(
        (two_forgotten.predicted_classes(each) == each).mean() for each in (1, 3)
    )


def test_a_remap_that_becomes_one_class_shows_in_the_spread_and_not_in_ua():
    one_class, spread = turned_into(*[2] * 90, *[1] * 10), turned_into(*[1, 2, 3] * 30)
    assert recognition.ua(one_class) == recognition.ua(spread) == 100
    assert recognition.shares(one_class, 0).tolist() == [0, 0.1, 0.9, 0]
    assert recognition.top_share(one_class) == pytest.approx(90)
    assert recognition.effective(one_class, 0) == pytest.approx(2 ** entropy([0.1, 0.9], base=2), abs=1e-5)
    assert recognition.effective(spread, 0) == pytest.approx(3, abs=1e-5)
    assert recognition.class_tv(one_class, spread) == pytest.approx(0.9 - 1 / 3)
    assert recognition.effective_classes(spread) == recognition.effective(spread, 0)


def test_the_entropy_of_unclear_images_is_high_and_of_sure_ones_zero_without_nan():
    assert recognition.entropy(turned_into(1, 2, certainty=0.0)) == 2
    assert recognition.entropy(turned_into(1, 2, certainty=1e4)) == 0
    p = probabilities(samples(0).logits[0])
    assert recognition.entropy(samples(0)) == pytest.approx(entropy(p, base=2, axis=1).mean(), abs=1e-12)


def test_the_mean_probability_is_that_of_the_forgotten_class():
    remap = turned_into(0, 1, 1, 1, certainty=1.0)
    p, q = np.exp(1) / (np.exp(1) + 3), 1 / (np.exp(1) + 3)
    assert recognition.probability(remap) == pytest.approx((p + 3 * q) / 4, abs=1e-12)


classes = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(classes, classes, classes)
def test_total_variation_of_classes_is_a_distance(first, second, third):
    a, b, c = (turned_into(*each) for each in (first, second, third))
    assert recognition.class_tv(a, a) == 0
    assert recognition.class_tv(a, b) == recognition.class_tv(b, a) <= 1
    assert recognition.class_tv(a, c) <= recognition.class_tv(a, b) + recognition.class_tv(b, c) + 1e-12
    assert recognition.class_tv(turned_into(*first[::-1]), b) == recognition.class_tv(a, b)


@given(classes)
def test_the_effective_number_of_classes_is_between_one_and_those_there_are(found):
    assert 1 - 1e-9 <= recognition.effective(turned_into(*found), 0) <= len(set(found)) + 1e-3


def test_two_samples_of_one_generator_are_as_far_as_the_docstring_says():
    distances = [recognition.class_tv(samples(2 * i), samples(2 * i + 1)) for i in range(100)]
    assert np.mean(distances) < np.sqrt(4 / (np.pi * 100)) < 2 * np.mean(distances)

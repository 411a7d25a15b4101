import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logit, logsumexp

from unweave.audits.classifier import logits as of

Z = np.random.default_rng(0).normal(scale=4, size=(50, 7)).astype(np.float32)
Y = np.random.default_rng(1).integers(7, size=50)


def test_probabilities_and_loss_equal_scipy():
    assert np.allclose(np.log(of.probabilities(Z)), log_softmax(Z.astype(float), axis=1), atol=1e-12)
    assert np.allclose(of.loss(Z, Y), -log_softmax(Z.astype(float), axis=1)[np.arange(50), Y], atol=1e-12)
    assert np.allclose(of.log_sum_exp(Z.astype(float)), logsumexp(Z.astype(float), axis=1), atol=1e-12)


def test_margin_is_the_logit_of_the_confidence():
    assert np.allclose(of.margin(Z, Y), logit(of.confidence(Z, Y)), atol=1e-9)


@given(st.floats(-80, 80), st.floats(-80, 80))
def test_margin_of_two_classes_is_their_difference(first, second):
    assert of.margin(np.array([[first, second]]), np.array([0]))[0] == pytest.approx(
        first - second, abs=1e-12
    )


def test_margin_tells_apart_what_the_confidence_rounds_to_one():
    logits = np.array([[40.0, 0.0, 0.0], [400.0, 0.0, 0.0]])
    labels = np.zeros(2, dtype=np.int64)
    assert (of.confidence(logits, labels) == 1).all()
    assert of.margin(logits, labels) == pytest.approx([40 - np.log(2), 400 - np.log(2)], abs=1e-12)
    assert of.margin(np.array([[np.log(1e12), 0.0]]), labels[:1])[0] == pytest.approx(
        27.631021115928547, abs=1e-12
    )


def test_a_shift_of_all_logits_changes_nothing():
    logits = Z.astype(float) + 1000
    assert np.allclose(of.margin(logits, Y), of.margin(Z, Y), atol=1e-9)
    assert np.allclose(of.probabilities(logits), of.probabilities(Z), atol=1e-9)


def test_the_logits_are_left_as_they_were():
    copy = Z.copy()
    of.margin(Z, Y)
    assert (copy == Z).all()


@given(st.integers(0, 10**6), st.integers(2, 40))
def test_equal_logits_give_equal_margins_wherever_the_classes_stand(seed, classes):
    rng = np.random.default_rng(seed)
    row, labels = rng.normal(scale=5, size=classes), rng.integers(classes, size=64)
    shuffled = np.stack([rng.permutation(row[1:]) for _ in labels])
    logits = np.empty((64, classes))
    for i, label in enumerate(labels):
        logits[i] = np.insert(shuffled[i], label, row[0])
    assert len(np.unique(of.margin(logits, labels))) == 1


def test_margins_that_differ_by_rounding_are_ties_and_others_are_not():
    noise = np.random.default_rng(0).uniform(-1e-6, 1e-6, size=50)
    assert len(np.unique(of.level(3.7 + noise))) == 1
    assert of.level(np.array([3.7, 3.701]))[0] < of.level(np.array([3.7, 3.701]))[1]

"""The classifier of many numbers decides as libsvm's does, and in a time that allows a hundred thousand."""

import time

import numpy as np
import pytest
from sklearn.svm import SVC

from for_each import for_each
from unweave.audits.classifier import membership, separator
from unweave.audits.classifier.membership import predict_members
from unweave.audits.classifier.separator import fit_separator

QUERIES = np.linspace(0, 1, 201)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def draw(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Members and others, as confidences of a model."""
    rng = np.random.default_rng(0)
    match kind:
        case "trained":
            return sigmoid(rng.normal(6, 3, n)), sigmoid(rng.normal(5, 3.5, n))
        case "uneven":
            return rng.beta(3, 1.5, n // 3), rng.beta(2, 2, n)
        case "near zero":  # no point is on the margin: many offsets are best
            return rng.beta(1, 99, n), rng.beta(1, 99, n)
        case "apart":
            return np.linspace(0.9, 1, n), np.linspace(0, 0.5, n)
        case _:
            return np.full(n, 0.3), np.full(n, 0.3)


def signs(members: np.ndarray, nonmembers: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones(len(members)), -np.ones(len(nonmembers))])


@for_each("kind", ["trained", "uneven", "near zero", "apart", "all alike"])
def test_it_decides_as_libsvm_at_a_small_tolerance(kind: str):
    members, nonmembers = draw(kind, 150)
    points, truth = np.concatenate([members, nonmembers]), signs(members, nonmembers)
    classifier = SVC(C=3, gamma=1.0, tol=1e-9).fit(points[:, None], truth)
    decisions = fit_separator(points, truth, cost=3.0)(QUERIES)
    assert decisions == pytest.approx(classifier.decision_function(QUERIES[:, None]), abs=1e-5)


def test_from_many_points_on_the_attack_uses_it_and_decides_alike(monkeypatch):
    members, nonmembers = draw("trained", 1500)
    exact_answers = predict_members(members, nonmembers, QUERIES)
    assert 0 < exact_answers.mean() < 1
    monkeypatch.setattr(membership, "MANY", len(members) + len(nonmembers))
    assert (predict_members(members, nonmembers, QUERIES) == exact_answers).all(), (
        "as many as that are for libsvm"
    )
    monkeypatch.setattr(membership, "MANY", len(members) + len(nonmembers) - 1)
    monkeypatch.setattr("sklearn.svm.SVC", None)
    fast_answers = predict_members(members, nonmembers, QUERIES)
    assert (fast_answers == exact_answers).mean() >= 0.98, "few queries lie where libsvm's tolerance decides"


def test_a_hundred_thousand_points_take_seconds():
    members, nonmembers = draw("trained", 50_000)
    start = time.process_time()
    is_member = predict_members(members, nonmembers, QUERIES)
    assert time.process_time() - start < 30
    assert 0 < is_member.mean() < 1


def test_a_fit_that_does_not_end_says_so(monkeypatch):
    monkeypatch.setattr(separator, "STEPS", 2)
    members, nonmembers = draw("trained", 50)
    with pytest.raises(ArithmeticError, match="of 100 points did not end in 2 steps"):
        fit_separator(np.concatenate([members, nonmembers]), signs(members, nonmembers), cost=3.0)

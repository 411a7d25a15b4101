from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from audits.answers import draw_evidence, replace_logits
from for_each import for_each
from unweave.audits.classifier import membership
from unweave.audits.classifier.logits import margin
from unweave.audits.classifier.membership import area, auc, mia, predict_members


def sure(labels: np.ndarray, confidence: float) -> np.ndarray:
    """Two-class logits that give every true class this probability."""
    logit = np.log(confidence / (1 - confidence))
    return np.where(np.arange(2) == labels[:, None], logit, 0.0)


def of_confidences(**confidences: float):
    evidence = draw_evidence(0, classes=2)
    return replace_logits(
        evidence, **{part: sure(evidence.labels[part], p) for part, p in confidences.items()}
    )


def test_mia_is_zero_where_forget_answers_like_retain_and_hundred_where_it_answers_like_test():
    levels = {"retain": 0.99, "calibration": 0.6, "test": 0.6}
    assert mia(of_confidences(forget=0.99, **levels)) == 0
    assert mia(of_confidences(forget=0.6, **levels)) == 100


def test_mia_equals_the_published_procedure_written_out():
    evidence = draw_evidence(1, {"forget": 100, "retain": 300, "calibration": 100, "test": 120}, boost=1.0)

    def confidences(part, n=None):
        p = softmax(evidence.logits[part][:n].astype(float), axis=1)
        return p[np.arange(len(p)), evidence.labels[part][:n]][:, None]

    training_points = np.vstack([confidences("retain", 120), confidences("test")])
    attack = SVC(C=3, gamma=1.0, kernel="rbf").fit(training_points, np.repeat([1, 0], 120))
    expected = 100 * (1 - attack.predict(confidences("forget")).mean())
    assert 0 < expected < 100
    assert mia(evidence) == pytest.approx(expected, abs=1e-12)


def test_mia_members_are_the_first_retained_examples_in_order(monkeypatch):
    arguments = []
    monkeypatch.setattr(membership, "predict_members", lambda *arrays: arguments.extend(arrays) or np.ones(1))
    evidence = draw_evidence(2, {"forget": 10, "retain": 90, "calibration": 20, "test": 30})
    mia(evidence)
    expected = membership.confidence(evidence.logits["retain"][:30], evidence.labels["retain"][:30])
    assert (arguments[0] == expected).all()
    assert [len(array) for array in arguments] == [30, 30, 10]


def test_mia_takes_no_test_example_of_a_class_forgotten_whole(monkeypatch):
    arguments = []
    monkeypatch.setattr(membership, "predict_members", lambda *arrays: arguments.extend(arrays) or np.ones(1))
    evidence = replace(draw_evidence(2), forgotten_classes=(3,))
    mia(evidence)
    assert len(arguments[1]) == (evidence.labels["test"] != 3).sum()
    assert len(arguments[2]) == len(evidence.labels["forget"])


def test_merging_close_points_changes_no_membership(monkeypatch):
    rng = np.random.default_rng(0)
    members, nonmembers = rng.beta(9, 0.4, 2_000), rng.beta(5, 0.6, 2_000)
    queries = rng.beta(7, 0.5, 500)
    fast_answers = predict_members(members, nonmembers, queries)
    monkeypatch.setattr(membership, "WHOLE", 4_001)
    exact_answers = predict_members(members, nonmembers, queries)
    assert 0 < exact_answers.mean() < 1
    assert (fast_answers == exact_answers).mean() >= 0.998, "1 of 500 may lie on the boundary"


def test_attack_names_members_where_they_are():
    members, nonmembers = np.linspace(0.9, 1, 20), np.linspace(0, 0.5, 20)
    assert predict_members(members, nonmembers, np.array([0.95, 0.2])).tolist() == [1, 0]


@for_each(
    ("positive", "negative", "expected"),
    [([3, 4], [1, 2], 1.0), ([1, 2], [3, 4], 0.0), ([5, 5], [5], 0.5), ([1, 3], [2, 3], 0.375)],
)
def test_area_on_crafted_arrays(positive, negative, expected):
    assert area(np.array(positive, dtype=float), np.array(negative, dtype=float)) == expected


NUMBERS = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20)


@given(NUMBERS, NUMBERS)
def test_area_equals_sklearn_with_ties_and_swaps_to_its_complement(positive, negative):
    truth = [1] * len(positive) + [0] * len(negative)
    value = area(np.array(positive), np.array(negative))
    assert value == pytest.approx(roc_auc_score(truth, positive + negative), abs=1e-12)
    assert area(np.array(negative), np.array(positive)) == pytest.approx(1 - value, abs=1e-12)


def test_auc_compares_forget_with_calibration_by_the_margin():
    evidence = draw_evidence(4)
    members, unseen = (
        margin(evidence.logits[part], evidence.labels[part]) for part in ("forget", "calibration")
    )
    truth = np.repeat([1, 0], [len(members), len(unseen)])
    assert auc(evidence) == pytest.approx(roc_auc_score(truth, np.concatenate([members, unseen])), abs=1e-12)


def test_auc_of_a_forgotten_class_takes_calibration_examples_of_that_class_only():
    evidence = draw_evidence(5)
    labels = evidence.labels["calibration"]
    base = replace(evidence, forgotten_classes=(2,), labels={**evidence.labels, "forget": np.full(100, 2)})
    logits = evidence.logits["calibration"].copy()
    logits[labels != 2] += np.random.default_rng(0).normal(size=logits[labels != 2].shape)
    assert auc(replace_logits(base, calibration=logits)) == auc(base)
    logits[labels == 2] = 0
    assert auc(replace_logits(base, calibration=logits)) != auc(base)


def test_a_model_that_answers_everything_alike_tells_nothing_whatever_its_rounding():
    # a last batch of another shape takes another kernel: its float32 logits end in other bits
    evidence = draw_evidence(0, classes=10)
    logits_by_part = {part: np.full_like(logits, 0.1) for part, logits in evidence.logits.items()}
    assert auc(replace_logits(evidence, **logits_by_part)) == 0.5
    other = np.nextafter(logits_by_part["forget"], np.float32(1))
    other[:, ::2] = 0.1
    assert auc(replace_logits(evidence, **{**logits_by_part, "forget": other})) == 0.5

"""The transferred threshold: fitted to the retain set and unseen examples, applied to the forget set."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from audits.answers import draw_evidence, replace_logits
from for_each import for_each
from unweave.audits.answers import Answers
from unweave.audits.attacks.forget_vs_unseen import STATISTICS
from unweave.audits.attacks.transfer import ATTACK, attack_figures, best_threshold
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import is_correct


def sure_of(evidence: Evidence, *parts: str) -> Evidence:
    """The same answers, with parts that the model knows by heart."""
    logits = {part: 20 * np.eye(4, dtype=np.float32)[evidence.labels[part]] for part in parts}
    return replace_logits(evidence, **logits)


def test_no_threshold_has_a_larger_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = np.round(rng.normal(0.8, 1, 90), 1), np.round(rng.normal(0, 1, 60), 1)
    threshold, scores = best_threshold(members, nonmembers), np.concatenate([members, nonmembers])
    truth = np.repeat([1, 0], [90, 60])
    accuracies = [balanced_accuracy_score(truth, scores > each) for each in [-np.inf, *scores]]
    assert balanced_accuracy_score(truth, scores > threshold) == pytest.approx(max(accuracies))


@for_each("statistic", STATISTICS)
def test_forget_examples_count_as_members_or_strangers_by_what_they_are_like(statistic: str) -> None:
    evidence = sure_of(draw_evidence(1), "retain")
    name = f"members by {statistic}"
    member_shares = attack_figures(Answers(sure_of(evidence, "forget")), [])[name]
    forget_shares = attack_figures(Answers(evidence), [])[name]
    assert member_shares.value == 1 and member_shares.low > 0.9
    share_right = is_correct(evidence.logits["forget"], evidence.labels["forget"]).mean()
    assert forget_shares.value == share_right if statistic == "correctness" else forget_shares.value <= 0.1


def test_neither_the_test_set_nor_unseen_examples_of_a_forgotten_class_fit_the_threshold() -> None:
    evidence = replace(sure_of(draw_evidence(1), "retain"), forgotten_classes=(2,))
    calibration = evidence.logits["calibration"].copy()
    calibration[evidence.labels["calibration"] == 2] *= -9
    other = replace_logits(evidence, test=-evidence.logits["test"], calibration=calibration)
    assert attack_figures(Answers(evidence), []) == attack_figures(Answers(other), [])


def test_without_unseen_examples_of_other_classes_there_is_no_figure() -> None:
    evidence = draw_evidence(1)
    labels = {**evidence.labels, "calibration": np.full(120, 2)}
    assert attack_figures(Answers(replace(evidence, labels=labels, forgotten_classes=(2,))), []) == {}


def test_a_constant_model_has_no_members() -> None:
    evidence = draw_evidence(1)
    zeros = replace_logits(evidence, **{part: np.zeros_like(each) for part, each in evidence.logits.items()})
    figures = attack_figures(Answers(zeros), [])
    assert all(each.value == 0 for name, each in figures.items() if "correctness" not in name)
    assert ATTACK.above == "under-forgetting" and not ATTACK.default

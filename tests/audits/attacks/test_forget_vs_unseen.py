import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from audits.answers import draw_evidence, replace_logits
from for_each import for_each
from unweave.audits.answers import Answers
from unweave.audits.attacks import ATTACKS
from unweave.audits.attacks.forget_vs_unseen import (
    STATISTICS,
    advantage,
    attack_figures,
    entropy,
    median_of_both,
    modified_entropy,
)
from unweave.audits.classifier.logits import probabilities
from unweave.audits.classifier.membership import auc

LOGITS = np.random.default_rng(0).normal(scale=3, size=(40, 10))
LABELS = np.arange(40) % 10


def test_every_attack_says_what_it_needs_and_what_it_cannot_show() -> None:
    for name, attack in ATTACKS.items():
        assert attack.name == name and attack.fewest >= 1
        assert attack.says.endswith(".") and attack.cannot.endswith(".")
        assert "arXiv" in attack.paper and attack.evidence


def test_entropy_equals_scipy() -> None:
    assert entropy(LOGITS, LABELS) == pytest.approx(scipy_entropy(probabilities(LOGITS), axis=1))


def test_modified_entropy_is_its_formula_and_that_of_released_code_is_not() -> None:
    """SalUn's code writes log p into whole columns: a statistic without the label."""
    p = probabilities(LOGITS)
    rows, true_p = np.arange(40), probabilities(LOGITS)[np.arange(40), LABELS]
    other_terms = p * np.log(1 - p)
    expected = -(1 - true_p) * np.log(true_p) - (other_terms.sum(axis=1) - other_terms[rows, LABELS])
    assert modified_entropy(LOGITS, LABELS) == pytest.approx(expected, rel=1e-9)
    released_value = -((1 - p) * np.log(p)).sum(axis=1)  # no label in it
    assert np.corrcoef(released_value, expected)[0, 1] < 0.9


def test_modified_entropy_by_hand_and_with_its_label() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1]]))
    hand = -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9)
    assert modified_entropy(logits, np.array([0])) == pytest.approx(hand)
    assert modified_entropy(logits, np.array([1])) == pytest.approx(
        -0.8 * np.log(0.2) - 0.7 * np.log(0.3) - 0.1 * np.log(0.9)
    )


def test_statistics_are_finite_where_a_probability_rounds_to_one() -> None:
    logits = np.array([[60.0, 0.0, 0.0], [0.0, 60.0, 0.0]], dtype=np.float32)
    for name, statistic in STATISTICS.items():
        score_of_truth, score_of_other = statistic(logits, np.array([0, 0]))
        assert np.isfinite([score_of_truth, score_of_other]).all()
        assert score_of_truth > score_of_other or name == "entropy"


def test_the_area_is_that_of_the_audit() -> None:
    figures = attack_figures(Answers(draw_evidence(1)), [])
    assert figures["auc of margin"].value == pytest.approx(auc(draw_evidence(1)), abs=1e-12)


@for_each("statistic", STATISTICS)
def test_members_are_found_and_a_constant_model_tells_nothing(statistic: str) -> None:
    evidence = draw_evidence(1)
    sure_evidence = replace_logits(evidence, forget=20 * np.eye(4)[evidence.labels["forget"]])
    assert attack_figures(Answers(sure_evidence), [])[f"auc of {statistic}"].low > 0.52
    flat_evidence = replace_logits(
        evidence, **{part: np.zeros_like(evidence.logits[part]) for part in ("forget", "calibration")}
    )
    figures = attack_figures(Answers(flat_evidence), [])
    assert figures["advantage"].value == 0
    if statistic != "correctness":  # a constant answer is right where the label is 0
        assert figures[f"auc of {statistic}"].value == 0.5


def test_the_threshold_of_the_advantage_weighs_both_kinds_alike() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (2, 3), (7, 4), (40, 9)):
        members, nonmembers = np.round(rng.normal(1, 1, n), 1), np.round(rng.normal(0, 1, m), 1)
        scores = np.concatenate([np.repeat(members, m), np.repeat(nonmembers, n)])
        assert median_of_both(members, nonmembers) == np.median(scores)
    many_scores = np.arange(200_000.0)  # copies of each score would take 640 GB
    assert advantage(many_scores + 1e6, many_scores)[0] == 1.0


def test_a_rate_is_shown_from_one_false_positive_on_and_judged_from_ten() -> None:
    for n_unseen, rates in ((120, ["10", "1"]), (999, ["10", "1"]), (1000, ["10", "1", "0.1"])):
        sizes = {"forget": 5, "retain": 2, "calibration": n_unseen, "test": 2}
        figures = attack_figures(Answers(draw_evidence(1, sizes)), [])
        assert [each for each in figures if "tpr" in each] == [f"tpr at {rate} % fpr" for rate in rates]
    assert ATTACKS["forget-vs-unseen"].fewest_unseen == {
        "tpr at 10 % fpr": 100,
        "tpr at 1 % fpr": 1000,
        "tpr at 0.1 % fpr": 10_000,
    }


def test_the_advantage_is_signed_and_its_interval_holds_it() -> None:
    high, low = np.arange(50.0) + 100, np.arange(40.0)
    assert advantage(high, low)[0] == 1.0 and advantage(low, high)[0] == -1.0
    for value, low_end, high_end in (advantage(high, low), advantage(low, high), advantage(low, low)):
        assert -1 <= low_end <= value <= high_end <= 1

"""The figures of Deep Unlearn: their closed forms, and the order that was published."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from audits.answers import draw_evidence, replace_logits
from for_each import for_each
from unweave.audits.classifier.deep_unlearn import (
    FIRST,
    LAST,
    MIDDLE,
    agreement,
    attack_accuracy,
    figures,
    fit_logistic,
    indiscernibility,
)
from unweave.methods import METHODS


def with_accuracy(evidence, **shares):
    """The same evidence, right on exactly these shares of the parts."""
    logits = {}
    for part, share in shares.items():
        labels = evidence.labels[part]
        predictions = np.where(np.arange(len(labels)) < share * len(labels), labels, (labels + 1) % 4)
        logits[part] = np.eye(4, dtype=np.float32)[predictions]
    return replace_logits(evidence, **logits)


def test_a_perfect_retrain_retains_all():
    values = figures(draw_evidence(1), draw_evidence(1))
    assert [values[f"{part}_retention"] for part in ("retain", "forget", "test")] == [1, 1, 1]


def test_retentions_are_ratios_of_accuracies():
    reference = with_accuracy(draw_evidence(1), forget=0.5, retain=0.8, test=0.6)
    values = figures(with_accuracy(draw_evidence(2), forget=0.75, retain=0.6, test=0.3), reference)
    ratios = [values[f"{part}_retention"] for part in ("retain", "forget", "test")]
    assert ratios == pytest.approx([0.75, 1.5, 0.5])


def test_no_right_answer_of_the_retrained_model_leaves_no_ratio():
    assert math.isnan(
        figures(draw_evidence(1), with_accuracy(draw_evidence(1), forget=0, retain=1, test=1))[
            "forget_retention"
        ]
    )


def test_losses_that_are_separable_have_no_indiscernibility():
    low, high = np.linspace(0, 1, 60), np.linspace(5, 6, 40)
    assert indiscernibility(low, high) == indiscernibility(high, low) == 0


def test_losses_that_are_equal_are_guessed():
    assert (
        attack_accuracy(np.ones(50), np.ones(80)) == 0.5 and indiscernibility(np.ones(50), np.ones(80)) == 1
    )


def test_the_attack_sees_as_many_of_either():
    # without balance the attack would say "forget" of all 900 and be right in nine of ten cases
    assert attack_accuracy(np.ones(900), np.ones(100)) == 0.5


def test_the_attack_finds_the_best_threshold():
    # of forget 80 % of the losses are 0, of unseen 30 %, others 1: the best attack is right in 3 of 4 cases
    forget, unseen = np.repeat([0.0, 1.0], [800, 200]), np.repeat([0.0, 1.0], [300, 700])
    assert attack_accuracy(forget, unseen) == pytest.approx(0.75, abs=0.02)


@for_each(
    ("sizes", "shift"),
    [((83, 61), 0.0), ((83, 61), 0.02), ((83, 61), 3.0), ((2, 2), 1.0), ((9, 9), 1.0), ((40, 40), 1.0)],
)
def test_the_attack_is_that_of_scikit_learn(sizes: tuple[int, int], shift: float):
    rng, draw_rng, n = np.random.default_rng(1), np.random.default_rng(0), min(sizes)
    forget, unseen = rng.gamma(0.3, 2, sizes[0]), rng.gamma(0.3, 2, sizes[1]) + shift
    draws = [np.sort(draw_rng.permutation(len(losses))[:n]) for losses in (forget, unseen)]
    losses, truth = np.concatenate([forget[draws[0]], unseen[draws[1]]])[:, None], np.repeat([1, 0], n)
    splits = StratifiedShuffleSplit(10, test_size=max(2, math.ceil(0.2 * n)), random_state=0)
    expected = cross_val_score(LogisticRegression(max_iter=1000), losses, truth, cv=splits).mean()
    assert attack_accuracy(forget, unseen) == pytest.approx(expected, abs=1e-12)
    regression = LogisticRegression(max_iter=1000).fit(losses, truth)
    ours = fit_logistic(losses[:, 0], truth.astype(float))
    assert ours == pytest.approx([regression.coef_[0, 0], regression.intercept_[0]], abs=1e-6)


def test_the_same_answers_give_the_same_figures():
    assert figures(draw_evidence(1), draw_evidence(2)) == figures(draw_evidence(1), draw_evidence(2))


def test_calibration_and_test_are_two_attacks():
    evidence = draw_evidence(1)
    model = replace_logits(evidence, forget=9 * np.eye(4, dtype=np.float32)[evidence.labels["forget"]])
    values = figures(model, evidence)
    assert values["indiscernibility"] < 0.3 and values["t_mia"] < 0.3
    other = replace_logits(model, test=9 * np.eye(4, dtype=np.float32)[evidence.labels["test"]])
    assert figures(other, evidence)["t_mia"] > 0.9
    assert figures(other, evidence)["indiscernibility"] == values["indiscernibility"]


def test_a_forgotten_class_is_compared_with_unseen_examples_of_its_own():
    evidence = draw_evidence(1)
    model = replace(evidence, forgotten_classes=(2,))
    is_of_class = (evidence.labels["calibration"] == 2)[:, None]
    other = replace_logits(model, calibration=np.where(is_of_class, evidence.logits["calibration"], 99))
    assert figures(other, model) == figures(model, model)


def test_two_examples_are_the_least():
    assert math.isnan(indiscernibility(np.ones(1), np.ones(9)))
    assert indiscernibility(np.array([0.0, 0.1]), np.array([9.0, 9.1])) == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_losses_that_are_not_finite_have_no_indiscernibility(loss: float):
    # scikit-learn refuses them, so its cross-validation says NaN
    for losses in ((np.append(np.ones(20), loss), np.ones(30)), (np.ones(20), np.append(np.ones(30), loss))):
        assert math.isnan(attack_accuracy(*losses)) and math.isnan(indiscernibility(*losses))


def test_the_published_order_agrees_with_itself_and_disagrees_with_its_reverse():
    order = {name: float(tier) for tier, names in enumerate((FIRST, MIDDLE, LAST)) for name in names}
    pairs = 2 * len(MIDDLE) + 2 * 2 + 2 * len(MIDDLE)
    assert (agreement(order).tau, agreement(order).pairs) == (1, pairs)
    assert agreement({name: -rank for name, rank in order.items()}).tau == -1


def test_kendall_by_hand():
    ranks = {"msg": 2.0, "finetune": 1.0, "ascent": 3.0, "salun": 3.0, "lur": 0.5}
    # msg-finetune no, msg-ascent, msg-salun and finetune-ascent yes, ascent-salun a tie; lur is not in it
    rank_agreement = agreement(ranks)
    assert rank_agreement.pairs == 5 and rank_agreement.tau == pytest.approx((3 - 1) / 5)
    assert math.isnan(agreement({"lur": 1.0, "salun": 2.0}).tau)


def test_those_that_are_here_have_the_names_of_the_registry():
    assert {*FIRST, *LAST, "finetune", "neggrad+", "salun", "scrub", "cf-k", "eu-k"} <= METHODS.keys()

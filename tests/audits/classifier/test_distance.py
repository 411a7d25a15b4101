import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import rankdata, spearmanr

from audits.answers import draw_evidence, replace_logits
from unweave.audits.classifier import distance
from unweave.audits.classifier.logits import level, loss, margin, probabilities

ONE, OTHER = draw_evidence(1), draw_evidence(2)
A, B = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]])


def test_jensen_shannon_of_disjoint_rows_is_one_bit_and_of_equal_rows_zero():
    assert distance.jensen_shannon(A, B)[0] == 1
    assert distance.jensen_shannon(A, A)[0] == 0


def test_jensen_shannon_sums_over_classes_and_weighs_by_the_models():
    # A widely copied implementation weighs by the mixture and divides by the number of classes.
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    middle = (p + q) / 2
    expected = ((p * np.log2(p / middle)).sum() + (q * np.log2(q / middle)).sum()) / 2
    assert distance.jensen_shannon(p, q)[0] == pytest.approx(expected, abs=1e-15)
    assert expected == pytest.approx(0.36515, abs=1e-5)


def test_js_equals_scipy_and_is_symmetric():
    p, q = (probabilities(each.logits["forget"]) for each in (ONE, OTHER))
    expected = (jensenshannon(p, q, base=2, axis=1) ** 2).mean()
    assert distance.js(ONE, OTHER) == pytest.approx(expected, abs=1e-12)
    assert distance.js(OTHER, ONE) == pytest.approx(expected, abs=1e-12)
    assert distance.js(ONE, ONE) == 0


def test_total_variation_of_a_hand_made_pair():
    sizes = {"forget": 1, "retain": 2, "calibration": 2, "test": 2}
    evidence = replace_logits(draw_evidence(0, sizes, classes=3), forget=np.log([[0.5, 0.3, 0.2]]))
    other = replace_logits(evidence, forget=np.log([[0.2, 0.2, 0.6]]))
    assert distance.tv(evidence, other) == pytest.approx(0.4, abs=1e-15)


def test_total_variation_is_a_distance():
    three = [ONE, OTHER, draw_evidence(3)]
    assert distance.tv(ONE, ONE) == 0
    assert distance.tv(ONE, OTHER) == distance.tv(OTHER, ONE) > 0
    assert distance.tv(three[0], three[2]) <= distance.tv(three[0], three[1]) + distance.tv(
        three[1], three[2]
    )


def test_rank_equals_spearman():
    margins = [margin(each.logits["forget"], each.labels["forget"]) for each in (ONE, OTHER)]
    assert distance.rank(ONE, OTHER) == pytest.approx(spearmanr(*margins)[0], abs=1e-4)
    assert distance.rank(ONE, OTHER) == pytest.approx(spearmanr(*map(level, margins))[0], abs=1e-12)
    assert distance.rank(ONE, ONE) == pytest.approx(1, abs=1e-12)


def test_rank_sees_only_the_order():
    scaled_evidence = replace_logits(ONE, forget=ONE.logits["forget"].astype(float) * 1.0)
    labels, rows = ONE.labels["forget"], np.arange(100)
    scaled_evidence.logits["forget"][rows, labels] += 3.0
    assert distance.rank(ONE, scaled_evidence) == pytest.approx(1, abs=1e-12)
    assert distance.tv(ONE, scaled_evidence) > 0.1


def test_rank_of_a_model_that_orders_nothing_is_zero():
    assert distance.rank(replace_logits(ONE, forget=np.zeros((100, 4))), OTHER) == 0


@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30))
def test_ranks_equal_scipy_with_ties(values):
    assert (distance.ranks(np.array(values)) == rankdata(values)).all()


def test_agreement_counts_equal_classes_of_its_own_part():
    predictions = ONE.logits["test"].argmax(axis=1)
    logits = ONE.logits["test"].copy()
    logits[:30] = np.eye(4)[(predictions[:30] + 1) % 4] * 20
    assert distance.agreement_test(ONE, replace_logits(ONE, test=logits)) == 75
    assert distance.agreement_forget(ONE, replace_logits(ONE, test=logits)) == 100


def test_streisand_tail_is_one_percent_against_itself_and_all_where_every_loss_is_beyond():
    assert distance.streisand(ONE, ONE) == 1
    labels = ONE.labels["forget"]
    wrong_logits = np.eye(4)[(labels + 1) % 4] * (loss(ONE.logits["forget"], labels).max() + 1)
    assert distance.streisand(replace_logits(ONE, forget=wrong_logits), ONE) == 100


def test_a_model_that_gives_every_example_the_same_logits_orders_nothing():
    evidence = draw_evidence(0, classes=10)
    constant = replace_logits(evidence, forget=np.full_like(evidence.logits["forget"], 0.1))
    assert distance.rank(constant, evidence) == 0 and distance.rank(evidence, constant) == 0

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from for_each import for_each
from unweave.audits.rates import delong, tpr_at_fpr
from unweave.audits.score import Share, clopper_pearson


@for_each(("successes", "n"), [(0, 10), (10, 1000), (18, 20), (20, 20), (1, 100)])
def test_clopper_pearson_equals_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_clopper_pearson_has_its_known_values() -> None:
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.3084971), abs=1e-7)
    assert clopper_pearson(18, 20) == pytest.approx((0.6830173, 0.9876515), abs=1e-7)
    low, high = clopper_pearson(10, 1000)
    assert (round(low, 3), round(high, 3)) == (0.005, 0.018)
    with pytest.raises(ValueError, match="found 3 of 2"):
        Share(3, 2, exact=True)


@given(st.integers(0, 5), st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_the_rate_is_the_best_that_a_roc_curve_allows(seed: int, fpr: float) -> None:
    rng = np.random.default_rng(seed)
    members, nonmembers = (
        np.round(rng.normal(0.5, 1, 300), 1),
        np.round(rng.normal(0, 1, 200), 1),
    )  # with ties
    threshold, rate = tpr_at_fpr(members, nonmembers, fpr)
    false_rates, true_rates, _ = roc_curve(
        np.repeat([1, 0], [300, 200]), np.concatenate([members, nonmembers]), drop_intermediate=False
    )
    assert rate.value == true_rates[false_rates <= fpr + 1e-12].max()
    assert (nonmembers > threshold).mean() <= fpr and rate.low <= rate.value <= rate.high


def test_too_few_non_members_are_refused() -> None:
    with pytest.raises(ValueError, match="needs at least 1000 non-members, found 999"):
        tpr_at_fpr(np.zeros(10), np.zeros(999), 0.001)
    with pytest.raises(ValueError, match="must be in"):
        tpr_at_fpr(np.zeros(10), np.zeros(10), 0.0)


def test_equal_scores_catch_nobody() -> None:
    assert tpr_at_fpr(np.ones(50), np.ones(50), 0.1)[1].value == 0


@for_each(("ours", "theirs", "expected"), [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.5)])
def test_the_area_is_one_half_or_the_end_where_it_must(ours: float, theirs: float, expected: float) -> None:
    assert delong(np.full(5, ours), np.full(7, theirs)) == (expected, expected, expected)


def test_the_area_equals_scikit_learn_and_swaps() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = np.round(rng.normal(0.3, 1, 150), 1), np.round(rng.normal(0, 1, 90), 1)
    area = delong(members, nonmembers)[0]
    assert area == pytest.approx(
        roc_auc_score(np.repeat([1, 0], [150, 90]), np.concatenate([members, nonmembers])), abs=1e-12
    )
    assert delong(nonmembers, members)[0] == pytest.approx(1 - area, abs=1e-12)


def test_the_error_of_the_area_is_the_known_one_and_the_interval_covers() -> None:
    rng, count = np.random.default_rng(0), 0
    for _ in range(200):
        _, low, high = delong(rng.normal(size=1000), rng.normal(size=1000))
        count += low <= 0.5 <= high
    assert (high - low) / 2 / 1.96 == pytest.approx(0.013, abs=5e-4)
    assert 0.91 <= count / 200 <= 0.985
    with pytest.raises(ValueError, match="two examples of each kind, found 1, 5"):
        delong(np.zeros(1), np.zeros(5))

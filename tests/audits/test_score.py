import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from for_each import for_each
from unweave.audits.score import (
    Share,
    bootstrap,
    compare,
    holm,
    interval,
    score,
    t_interval,
    wilcoxon,
    wilson,
)

PERCENT = (0.0, 100.0)


def test_t_interval_equals_scipy():
    values = [3.0, 5.0, 4.0, 7.0]
    expected = stats.t.interval(0.9, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values, level=0.9) == pytest.approx(expected, abs=1e-12)


def test_half_width_of_ten_seeds_is_072_standard_deviations():
    values = np.random.default_rng(0).normal(size=10)
    low, high = t_interval(values.tolist())
    assert (high - low) / 2 / values.std(ddof=1) == pytest.approx(0.7153569, abs=1e-6)


def test_one_value_has_no_interval():
    assert np.isnan(t_interval([3.0])).all()


def test_two_seeds_have_no_interval():
    assert np.isnan(interval([20.0, 27.0])).all() and np.isnan(interval([20.0, 27.0], PERCENT)).all()
    result = score([20.0, 27.0], None, direction="match", bounds=PERCENT)
    assert (result.value, result.n) == (23.5, 2) and np.isnan([result.low, result.high]).all()


def test_without_a_range_the_interval_is_students():
    assert interval([3.0, 5.0, 4.0, 7.0]) == t_interval([3.0, 5.0, 4.0, 7.0])


def test_the_interval_of_a_share_is_students_on_the_scale_of_the_logit():
    shares = np.array([0.02, 0.3, 0.1, 0.45])
    p, error = shares.mean(), stats.sem(shares)
    ends = expit(logit(p) + np.array([-1, 1]) * stats.t.ppf(0.975, 3) * error / (p * (1 - p)))
    assert interval((100 * shares).tolist(), PERCENT) == pytest.approx(tuple(100 * ends), abs=1e-9)
    assert t_interval((100 * shares).tolist())[0] < 0 < interval((100 * shares).tolist(), PERCENT)[0]


@given(st.lists(st.floats(0, 100), min_size=3, max_size=8))
def test_the_interval_of_a_share_lies_in_its_range_and_holds_the_mean(values):
    low, high = interval(values, PERCENT)
    assert 0 <= low <= np.mean(values) + 1e-9 and np.mean(values) - 1e-9 <= high <= 100
    mirror_interval = interval([100 - value for value in values], PERCENT)
    assert mirror_interval == pytest.approx((100 - high, 100 - low), abs=1e-6)


@pytest.mark.parametrize("end", PERCENT)
def test_a_share_at_the_end_of_its_range_in_every_seed_has_no_width(end):
    assert interval([end] * 4, PERCENT) == (end, end)


def test_near_the_middle_with_little_spread_both_intervals_agree():
    values = [49.9, 50.2, 50.1, 50.0, 49.8]
    assert interval(values, PERCENT) == pytest.approx(t_interval(values), abs=1e-4)


def test_score_holds_mean_interval_reference_and_gap():
    result = score([1.0, 2.0, 3.0], 5.0, direction="match", null_band=(4.0, 6.0))
    assert (result.value, result.n, result.reference, result.gap, result.null_band) == (
        2.0,
        3,
        5.0,
        -3.0,
        (4.0, 6.0),
    )
    assert result.low < 2 < result.high
    assert score([1.0], None, direction="lower").gap is None


def test_wilcoxon_of_ten_seeds_that_all_agree_is_the_smallest_possible():
    assert wilcoxon(list(range(10)), [x + 1 + x / 10 for x in range(10)]) == pytest.approx(
        2 / 2**10, abs=1e-12
    )
    assert wilcoxon([1.0, 2.0], [1.0, 2.0]) == 1


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises_and_keeps_the_order(p):
    adjusted_p = holm({str(i): value for i, value in enumerate(p)})
    assert all(adjusted_p[str(i)] >= value for i, value in enumerate(p))
    assert sorted(adjusted_p, key=lambda name: (adjusted_p[name], p[int(name)])) == sorted(
        adjusted_p, key=lambda name: (p[int(name)], adjusted_p[name])
    )


def test_compare_names_the_mean_difference_and_corrects_over_the_methods():
    ours = [1.0 + i / 100 for i in range(10)]
    comparison = compare(ours, {"worse": [x + 1 + i / 50 for i, x in enumerate(ours)], "same": ours})
    assert comparison["worse"].difference == pytest.approx(-1.09)
    assert comparison["worse"].adjusted == pytest.approx(2 * comparison["worse"].p)
    assert comparison["same"].p == 1


@for_each(
    ("successes", "n", "expected"),
    [(10, 1000, (0.0054408, 0.0183095)), (0, 10, (0.0, 0.2775328)), (10, 10, (0.7224672, 1.0))],
)
def test_wilson_equals_scipy(successes, n, expected):
    bounds = wilson(successes, n)
    ours = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert bounds == pytest.approx((ours.low, ours.high), abs=1e-12)
    assert bounds == pytest.approx(expected, abs=1e-6)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="found 3 of 2"):
        wilson(3, 2)


def test_a_share_has_wilsons_interval_and_is_one():
    share = Share(10, 1000)
    assert (share.value, share.low, share.high) == (0.01, *wilson(10, 1000))
    with pytest.raises(ValueError, match="found 0 of 0"):
        Share(0, 0)


def test_the_bootstrap_of_a_mean_is_near_its_t_interval_and_repeats_with_its_generator():
    values = np.random.default_rng(0).normal(size=200)
    intervals = [
        bootstrap(200, lambda rows: float(values[rows].mean()), rng=np.random.default_rng(1))
        for _ in range(2)
    ]
    assert intervals[0] == intervals[1]
    assert intervals[0].value == values.mean()
    assert (intervals[0].low, intervals[0].high) == pytest.approx(t_interval(values.tolist()), abs=0.02)


def test_a_bootstrap_of_one_row_is_refused():
    with pytest.raises(ValueError, match="at least two rows, found 1"):
        bootstrap(1, lambda rows: 0.0, rng=np.random.default_rng(0))

"""Ranks over blocks: Demšar's own example, and what holds for any figures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from for_each import for_each
from unweave.report.ranks import Ranking, critical_difference, rank_values, ranking

DEMSAR = Ranking({"C4.5+m+cf": 1.964, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5": 3.143}, 14)
"""Four classifiers on fourteen data sets: the example of Demšar (2006), section 3.2.2."""


def test_the_published_example():
    assert DEMSAR.friedman == pytest.approx(9.28, abs=0.01)
    assert DEMSAR.critical == pytest.approx(1.25, abs=0.005)
    f = 13 * DEMSAR.friedman / (14 * 3 - DEMSAR.friedman)
    assert f == pytest.approx(3.69, abs=0.01)
    assert DEMSAR.p == pytest.approx(stats.f.sf(f, 3, 39), abs=1e-12)


@for_each(
    ("methods", "alpha", "q"),
    [(2, 0.05, 1.960), (4, 0.05, 2.569), (10, 0.05, 3.164), (4, 0.10, 2.291)],
)
def test_the_critical_difference_has_the_published_q(methods, alpha, q):
    expected = q * math.sqrt(methods * (methods + 1) / (6 * 25))
    assert critical_difference(methods, 25, alpha=alpha) == pytest.approx(expected, abs=5e-4)


def test_ranks_by_hand():
    result = ranking([{"a": 1.0, "b": 3.0, "c": 2.0}, {"a": 5.0, "b": 5.0, "c": 7.0}])
    assert result.ranks == {"a": 1.25, "b": 2.25, "c": 2.5} and result.blocks == 2
    assert list(result.ranks) == ["a", "b", "c"]


def test_what_failed_shares_the_last_rank():
    assert rank_values({"a": math.nan, "b": 2.0, "c": math.nan}) == {"a": 2.5, "b": 1.0, "c": 2.5}


def test_figures_that_differ_by_rounding_share_their_rank():
    assert 0.1 + 0.2 != 0.3
    assert rank_values({"a": 0.1 + 0.2, "b": 0.3, "c": 0.3001}) == {"a": 1.5, "b": 1.5, "c": 3.0}


def test_groups_are_the_largest_ones():
    names = Ranking({"a": 1.0, "b": 1.5, "c": 2.2, "d": 4.9, "e": 5.4}, 20)
    assert 1.2 < names.critical < 2.7
    assert names.groups == [("a", "b", "c"), ("d", "e")]
    chained = Ranking({"a": 1.0, "b": 2.0, "c": 3.0}, 20)
    assert 0.7 < chained.critical < 1 and chained.groups == []


def test_overlapping_groups_are_both_named():
    result = Ranking({"a": 1.4, "b": 2.0, "c": 2.6}, 12)
    assert 0.6 < result.critical < 1.2
    assert result.groups == [("a", "b"), ("b", "c")]


def test_one_order_in_every_block_is_the_strongest_evidence_and_one_method_is_none():
    result = ranking([{"a": 1.0, "b": 2.0, "c": 3.0}] * 10)
    assert result.p == 0 and result.friedman == 20
    assert math.isnan(ranking([{"a": 1.0}] * 5).p) and math.isnan(ranking([{"a": 1.0}] * 5).critical)


@given(st.integers(3, 6), st.integers(3, 12), st.integers(0, 99))
def test_friedman_equals_scipy_and_ranks_sum_up(methods, blocks, seed):
    figures = np.random.default_rng(seed).normal(size=(blocks, methods))
    result = ranking([dict(zip("abcdef", row.tolist(), strict=False)) for row in figures])
    assert result.friedman == pytest.approx(stats.friedmanchisquare(*figures.T).statistic, abs=1e-9)
    assert sum(result.ranks.values()) == pytest.approx(methods * (methods + 1) / 2)


@pytest.mark.parametrize("blocks", [[], [{"a": 1.0}, {"b": 1.0}]])
def test_blocks_that_differ_are_refused(blocks):
    with pytest.raises(ValueError, match="the same methods in each"):
        ranking(blocks)

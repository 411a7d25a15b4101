"""Rows keep every method, rank only what ran, and print a dash where there is no number."""

import math

import pytest

from for_each import for_each
from records import put, synthetic, without
from unweave.report.numbers import DASH, interval, number, probability
from unweave.report.ranking import blocks, ours_of, rank_stages
from unweave.report.rows import headline, is_outside, rows


@pytest.fixture
def stage():
    return synthetic()["stages"]["trace"]


def names(stage):
    return [row.name for row in rows(stage)]


def best(stage):
    return [row.name for row in rows(stage) if row.best]


def test_references_come_first_then_methods_by_gap_then_failures(stage):
    stage_rows = rows(stage)
    assert names(stage)[:3] == ["Retrain", "retrain", "original"]
    assert names(stage)[-1] == "diverged"
    gaps = [row.gap.mean for row in stage_rows if row.kind == "method" and row.status != "FAILED"]
    assert gaps == sorted(gaps)


def test_costs_are_relative_to_the_reference_and_not_to_the_row_retrain(stage):
    stage["methods"]["retrain"]["cost"] = 1.33
    assert [row.cost for row in rows(stage)[:2]] == [1.0, 1.33]
    del stage["methods"]["retrain"]
    stage["reference"] |= {"seconds": None, "gradient_evaluations": 480.0}
    assert rows(stage)[0].cost == 1.0, "a bench without that row counts gradients alone"


def test_every_method_has_exactly_one_row(stage):
    assert sorted(names(stage)) == sorted(["Retrain", *stage["methods"]])


def test_the_best_is_the_closest_method_that_ran_and_was_not_refused(stage):
    assert best(stage) == ["lur-match"]
    stage["methods"]["lur-match"]["verdict"] = "FAIL"
    assert best(stage) == ["joint-match"]


def test_no_method_is_best_of_one_seed(stage):
    assert best({**stage, "seeds": [0]}) == []


@pytest.mark.parametrize("mean", [math.nan, None, -math.inf])
def test_a_gap_without_a_finite_number_never_ranks(stage, mean):
    other_stage = put(stage, "methods", "lur-match", "gap", "mean", value=mean)
    assert best(other_stage) == ["joint-match"]
    assert names(other_stage)[-2:] == ["lur-match", "diverged"]


def test_a_failed_method_never_ranks_whatever_its_numbers_say(stage):
    stage["methods"]["ascent"] |= {
        "failed": "stopped",
        "gap": stage["methods"]["ascent"]["gap"] | {"mean": 0.0},
    }
    assert best(stage) == ["lur-match"]
    assert "ascent" in names(stage)[-2:]


def test_no_method_is_best_where_every_verdict_is_fail(stage):
    for method in stage["methods"].values():
        method["verdict"] = "FAIL"
    assert best(stage) == []


def test_the_headline_is_the_first_method_that_is_no_reference_unless_the_record_names_one(stage):
    assert headline(stage).name == "lur"
    assert headline(stage | {"headline": "salun"}).name == "salun"
    one_method = stage | {"methods": {"original": stage["methods"]["original"]}}
    assert headline(one_method).name == "original"
    assert headline(stage | {"methods": {}}) is None


def test_a_retrain_that_repeats_the_reference_is_one_row_with_its_costs(stage):
    stage["methods"]["retrain"]["scores"] = stage["reference"]["scores"]
    first = rows(stage)[0]
    assert names(stage).count("Retrain") == 1 and "retrain" not in names(stage)
    assert first.status == "reference" and first.seconds == stage["methods"]["retrain"]["seconds"]


def test_a_stage_without_a_reference_has_no_reference_row(stage):
    bare_stage = put(stage, "reference", value={"scores": {}, "null_band": {}})
    assert names(without(bare_stage, "methods", "retrain"))[0] == "original"


def test_the_verdict_is_not_repeated_in_the_reason(stage):
    assert {row.name: row.reason for row in rows(stage)}["lur"].startswith("every tested figure")


@pytest.mark.parametrize(
    ("metric", "distance", "beyond"),
    [("ua", 1.2, False), ("ua", 1.4, True), ("ua", -1.4, True), ("mia", 50.0, False)],
)
def test_a_difference_is_outside_on_either_side_of_its_margin(stage, metric, distance, beyond):
    other_stage = put(stage, "methods", "lur", "scores", metric, "gap", value=distance)
    cell = {row.name: row for row in rows(other_stage)}["lur"].scores[metric]
    assert is_outside(metric, cell, stage["margins"].get(metric)) is beyond


@pytest.mark.parametrize(("value", "beyond"), [(0.09, False), (0.10, True)])
def test_the_margin_of_a_distance_between_two_models_bounds_the_distance(stage, value, beyond):
    other_stage = put(stage, "methods", "lur", "scores", "tv", "value", value=value)
    cell = {row.name: row for row in rows(other_stage)}["lur"].scores["tv"]
    assert is_outside("tv", cell, 0.0944) is beyond


@for_each(
    ("value", "digits", "text"),
    [
        (None, 2, DASH), (math.nan, 2, DASH), (math.inf, 2, DASH),
        (-0.001, 2, "0.00"), (-0.005001, 2, "-0.01"),
        (100, 2, "100.00"), (0.0944, 3, "0.094"), (3400.0, 0, "3400"),
    ],
)  # fmt: skip
def test_numbers(value, digits, text):
    assert number(value, digits) == text


@for_each(
    ("bounds", "text"),
    [
        ((9.0, 8.5, 9.5), "9.00 ±0.50"),
        ((9.0, 8.9, 9.5), "9.00 [8.90, 9.50]"),
        ((9.0, None, None), "9.00"),
        ((9.0, math.nan, math.nan), "9.00"),
        ((None, 8.5, 9.5), DASH),
    ],
)
def test_intervals(bounds, text):
    assert interval(*bounds) == text


class TestCompared:
    """The columns that compare methods: the record's tests, and ranks over seeds."""

    def test_ranks_are_those_of_the_gaps_seed_by_seed(self):
        stage = synthetic()["stages"]["class"]
        stage["methods"]["lur"]["per_seed"]["gap"] = [1.0, 3.0]
        stage["methods"]["finetune"]["per_seed"]["gap"] = [2.0, 2.0]
        assert {row.name: row.rank for row in rows(stage)} == {
            "Retrain": None, "original": None, "lur": 1.5, "finetune": 1.5
        }  # fmt: skip

    def test_what_failed_is_last_and_what_is_no_number_as_well(self):
        stage = synthetic()["stages"]["trace"]
        ranks = {row.name: row.rank for row in rows(stage)}
        assert ranks["diverged"] == 17 and ranks["lur-match"] == 1.0
        stage["methods"]["lur-match"]["per_seed"]["gap"] = [None] * 10
        assert {row.name: row.rank for row in rows(stage)}["lur-match"] == 16.5

    def test_a_record_that_tells_nothing_per_seed_has_no_ranks(self):
        stage = synthetic()["stages"]["trace"]
        for row in stage["methods"].values():
            row.pop("per_seed", None)
        assert {row.rank for row in rows(stage)} == {None} and blocks(stage) == []

    def test_one_seed_ranks_nothing(self):
        stage = synthetic()["stages"]["trace"] | {"seeds": [0]}
        assert {row.rank for row in rows(stage)} == {None}

    def test_stages_share_a_ranking_unless_they_share_a_seed_of_the_same_data(self):
        one, other = (synthetic()["stages"][name] for name in ("trace", "class"))
        assert rank_stages([one, other]) is None
        other["data"]["digest"] = "cd" * 32
        result = rank_stages([one, other])
        assert result.blocks == 12 and result.ranks.keys() == {"lur", "finetune"}

    def test_tests_are_the_records_first_ones(self):
        stage = synthetic()["stages"]["trace"]
        assert ours_of(stage) == "lur" and {row.name: row.p for row in rows(stage)}["joint"] == 0.0004
        stage["comparisons"] = stage["comparisons"][1:]
        assert ours_of(stage) == "lur-match"
        assert {row.name: row.p for row in rows(stage) if row.p is not None} == {"short-retrain": 0.0313}
        assert ours_of({**stage, "comparisons": []}) is None


def test_a_small_probability_is_its_bound():
    assert [probability(p) for p in (0.0313, 0.0005, 0.0004, 1.0, None)] == [
        "0.031", "0.001", "<0.001", "1.000", DASH
    ]  # fmt: skip

"""Verdicts without a retrained reference: prediction from like requests, and when there is none."""

from dataclasses import replace

import numpy as np
import pytest

from for_each import for_each
from unweave.audits.classifier.metrics import METRICS
from unweave.audits.like_requests import (
    About,
    LikeRequest,
    Match,
    judge_by_like,
    list_uncovered,
    nearest_stratum,
    predict,
)
from unweave.audits.verdict import Verdict

ABOUT = About(size=50, whole=False, class_mix=0.1, difficulty=0.2, entanglement=0.3)
MARGINS = {"ua": 3.0, "ra": 1.0, "ta": 2.0, "auc": 0.05}
EXPECTED = {"ua": 10.0, "ra": 99.0, "ta": 90.0, "auc": 0.5}
RETRAINED = {"ua": 10.0, "ra": 99.0, "ta": 90.0, "auc": 0.5}
ORIGINAL = {"ua": 0.0, "ra": 99.0, "ta": 90.0, "auc": 0.8}


def like(offset: float = 0.0, *, stratum: str = "random", verdict: str = "PASS", **about) -> LikeRequest:
    """A request whose retrained models lie a share of each margin from what was expected."""
    offsets = {name: offset * margin for name, margin in MARGINS.items()}
    return LikeRequest(
        stratum, replace(ABOUT, **about), offsets, MARGINS, dict.fromkeys(MARGINS, 0.0), verdict
    )


LIKE = [like(each) for each in (-0.05, -0.02, 0.0, 0.02, 0.05)]


def judge_values(values, requests=LIKE, about=ABOUT, **options):
    judgement, _ = judge_by_like(
        values, ORIGINAL, EXPECTED, nearest_stratum(about, requests), smallest={}, metrics=METRICS, **options
    )
    return judgement


class TestPrediction:
    def test_it_covers_one_more_request_as_often_as_it_says(self):
        draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 5))
        count = 0
        for *sample, one in draws.tolist():
            middle, reach = predict(sample, level=0.9)
            count += abs(one - middle) < reach
        assert count / len(draws) == pytest.approx(0.9, abs=0.015)

    def test_it_is_that_of_the_tables(self):
        # Student's 95 % quantile with two degrees of freedom is 2.920
        middle, reach = predict([1.0, 2.0, 3.0], level=0.9)
        assert middle == 2.0 and reach == pytest.approx(2.920 * (4 / 3) ** 0.5, abs=2e-3)

    def test_one_request_predicts_nothing(self):
        assert predict([1.0], level=0.9) == (1.0, float("inf"))


class TestVerdict:
    def test_a_retrained_model_passes_and_the_original_fails(self):
        assert judge_values(RETRAINED).verdict is Verdict.PASS
        assert judge_values(ORIGINAL).verdict is Verdict.FAIL

    def test_every_verdict_says_that_nothing_was_retrained(self):
        for values in (RETRAINED, ORIGINAL):
            judgement = judge_values(values)
            assert judgement.reason.startswith(f"{judgement.verdict}: ")
            assert (
                "no reference of this request was retrained" in judgement.reason
                and "random" in judgement.reason
            )

    def test_requests_that_differ_widely_decide_nothing(self):
        requests = [like(each) for each in (-2.0, -1.0, 0.0, 1.0, 2.0)]
        for values in (RETRAINED, {**RETRAINED, "ua": 6.0}):
            assert judge_values(values, requests).verdict is Verdict.INCONCLUSIVE

    @pytest.mark.parametrize("verdicts", [["FAIL", *["PASS"] * 4], ["INCONCLUSIVE"] * 3 + ["PASS"] * 2])
    def test_it_passes_no_method_that_did_not_pass_like_requests(self, verdicts):
        requests = [replace(each, verdict=verdict) for each, verdict in zip(LIKE, verdicts, strict=True)]
        judgement = judge_values(RETRAINED, requests)
        assert judgement.verdict is Verdict.INCONCLUSIVE and "of the 5 like requests" in judgement.reason
        assert judge_values(RETRAINED, requests, gate=False).verdict is Verdict.PASS

    def test_a_margin_is_at_least_an_example_of_the_request(self):
        match = Match("random", LIKE, ())
        _, margins = judge_by_like(
            RETRAINED, ORIGINAL, EXPECTED, match, smallest={"ua": 20.0}, metrics=METRICS
        )
        assert margins.margin == {**MARGINS, "ua": 20.0}


class TestCoverage:
    @for_each(
        ("change", "sentence"),
        [
            ({"size": 101}, "its size is 101, theirs 50"),
            ({"size": 24}, "its size is 24"),
            ({"class_mix": 0.21}, "its class mix is 0.21, theirs 0.10"),
            ({"difficulty": 0.31}, "its difficulty"),
            ({"entanglement": 0.19}, "its entanglement"),
            ({"whole": True}, "it holds whole classes"),
            ({"whole": None}, "it holds a whole class and other examples"),
        ],
    )
    def test_a_request_unlike_all_others_is_inconclusive(self, change, sentence):
        judgement = judge_values(RETRAINED, about=replace(ABOUT, **change))
        assert judgement.verdict is Verdict.INCONCLUSIVE and sentence in judgement.reason
        assert judge_values(ORIGINAL, about=replace(ABOUT, **change)).verdict is Verdict.INCONCLUSIVE

    def test_requests_within_the_tolerances_are_covered(self):
        assert list_uncovered(replace(ABOUT, size=100, class_mix=0.19, difficulty=0.11), LIKE) == []

    def test_two_requests_are_too_few(self):
        judgement = judge_values(RETRAINED, LIKE[:2])
        assert judgement.verdict is Verdict.INCONCLUSIVE and "2 like requests, 3 needed" in judgement.reason

    def test_the_nearest_stratum_that_covers_is_chosen(self):
        hard_requests = [like(stratum="memorized", difficulty=0.28)] * 3
        assert (
            nearest_stratum(replace(ABOUT, difficulty=0.27), [*LIKE, *hard_requests]).stratum == "memorized"
        )
        assert nearest_stratum(replace(ABOUT, difficulty=0.21), [*LIKE, *hard_requests]).stratum == "random"
        two_requests = [like(stratum="memorized", difficulty=0.28)] * 2
        assert nearest_stratum(replace(ABOUT, difficulty=0.27), [*LIKE, *two_requests]).stratum == "random"


def test_a_request_with_a_rare_class_whole_does_not_spoil_its_stratum():
    mixed_request = like(0.0, whole=None)
    match = nearest_stratum(ABOUT, [mixed_request, *LIKE])
    assert match.uncovered == [] and list(match.like) == LIKE
    mixed_match = nearest_stratum(replace(ABOUT, whole=None), [mixed_request, *LIKE])
    assert "1 like requests, 3 needed" in mixed_match.uncovered
    assert any("it holds a whole class and other examples" in clause for clause in mixed_match.uncovered)

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from for_each import for_each
from unweave.audits.classifier.metrics import METRICS
from unweave.audits.equivalence import equivalence
from unweave.audits.margins import Margins, margins
from unweave.audits.verdict import Verdict, judge

MARGIN = {"ua": 3.1, "ra": 0.5, "ta": 1.0, "auc": 0.03, "tv": 0.2}
RETRAINED = {"ua": 12.9, "ra": 99.5, "ta": 91.0, "mia": 20.0, "auc": 0.52, "tv": 0.15}
MARGINS = Margins(
    MARGIN, {name: (value - 1, value + 1) for name, value in RETRAINED.items()}, RETRAINED, 1.0, 12
)
# Ten seeds that differ a little, with a mean of nothing.
NOISE = np.array([-0.04, 0.02, 0.01, -0.03, 0.05, -0.02, 0.03, 0.0, -0.05, 0.03])


def seeds(scale: float = 1.0, **changes: float) -> list[dict[str, float]]:
    return [
        {**RETRAINED, **changes, "ua": changes.get("ua", RETRAINED["ua"]) + scale * noise} for noise in NOISE
    ]


def reason(scale: float = 1.0, **changes: float) -> str:
    return judge(seeds(scale, **changes), seeds(0), MARGINS, original=seeds(ua=0.0), metrics=METRICS).reason


def test_equivalence_is_the_two_one_sided_t_tests():
    values = [{"ua": 15.0 + 20 * noise} for noise in NOISE]
    references = [{"ua": 13.0}] * 10
    result = equivalence(METRICS["ua"], values, references, 3.1)
    differences = np.array([each["ua"] for each in values]) - 13
    p_above = stats.ttest_1samp(differences, 3.1, alternative="less").pvalue
    p_below = stats.ttest_1samp(differences, -3.1, alternative="greater").pvalue
    assert (result.outcome == "equal") == (max(p_above, p_below) < 0.05)
    assert equivalence(METRICS["ua"], values, references, result.high + 1e-9).outcome == "equal"
    assert equivalence(METRICS["ua"], values, references, result.high).outcome == "open"
    assert equivalence(METRICS["ua"], values, references, result.low - 1e-9).outcome == "different"
    p_at_end = stats.ttest_1samp(differences, result.high, alternative="less").pvalue
    assert p_at_end == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize("metric", ["ua", "ra", "ta", "auc"])
@for_each("side", [1, -1])
def test_a_difference_at_the_margin_without_spread_is_not_equal(metric, side):
    margin = MARGIN[metric]
    at = [{metric: RETRAINED[metric] + side * margin}] * 10
    result = equivalence(METRICS[metric], at, [RETRAINED] * 10, margin)
    assert (result.outcome, result.finding) == ("open", None)
    inner_values = [{metric: RETRAINED[metric] + 0.999 * side * margin}] * 10
    assert equivalence(METRICS[metric], inner_values, [RETRAINED] * 10, margin).outcome == "equal"


def test_a_distance_at_its_margin_without_spread_is_not_equal():
    assert equivalence(METRICS["tv"], [{"tv": 0.2}] * 10, [], 0.2).outcome == "open"
    assert equivalence(METRICS["tv"], [{"tv": 0.19}] * 10, [], 0.2).outcome == "equal"


def test_where_nothing_was_to_forget_no_difference_is_a_fail():
    # one easy record: nobody can tell the original from a retrained model, whatever else differs
    equal_values = [{**RETRAINED, "tv": 0.05}] * 10
    judgement = judge(
        [{**each, "tv": 0.9} for each in equal_values],
        equal_values,
        MARGINS,
        original=equal_values,
        metrics=METRICS,
    )
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert judgement.reason.startswith("INCONCLUSIVE: the forget set has no measurable influence: ")
    assert judgement.reason.endswith(
        ". All the same, other answers than retraining: TV on F 0.900 against 0.050 between two retrained "
        "models (at most 0.200)"
    )
    second = judge(equal_values, equal_values, MARGINS, original=equal_values, metrics=METRICS)
    assert second.reason.endswith("even the untouched original is not shown to differ from retraining")


def test_an_easy_record_is_no_false_alarm():
    easy_margins = margins(
        [RETRAINED] * 12, [{"tv": 1e-7}] * 66, sizes={"forget": 1, "retain": 99, "test": 99}, metrics=METRICS
    )
    equal_values, far_values = [{**RETRAINED, "tv": 1e-7}] * 10, [{**RETRAINED, "tv": 1e-6}] * 10
    assert easy_margins.margin["tv"] == 0.01
    assert (
        judge(far_values, equal_values, easy_margins, original=far_values, metrics=METRICS).verdict
        == Verdict.INCONCLUSIVE
    )


def test_an_equal_model_passes_and_says_over_how_many_seeds():
    judgement = judge(seeds(), seeds(0), MARGINS, original=seeds(ua=0.0), metrics=METRICS)
    assert judgement.verdict == Verdict.PASS
    assert judgement.reason == (
        "PASS: UA, RA, TA, AUC and TV on F equal retrained models' within the margins, over 10 seeds; "
        "the untouched original is 4.2 margins out (UA)"
    )


@for_each(
    ("probe", "silhouette", "verdict"),
    [(60.0, 0.2, "INCONCLUSIVE"), (71.0, 0.31, "INCONCLUSIVE"), (85.0, 0.2, "PASS"), (60.0, 0.45, "PASS")],
)
def test_a_class_passes_only_where_a_probe_would_have_seen_it(probe, silhouette, verdict):
    probe_margins = replace(MARGINS, margin={**MARGIN, "probe": 10.0, "silhouette": 0.1, "relearn": 2.0})
    equal_values = [{**each, "probe": 60.0, "silhouette": 0.2, "relearn": 15.0} for each in seeds(0)]
    original = [
        {**each, "ua": 0.0, "probe": probe, "silhouette": silhouette, "relearn": 1.0} for each in equal_values
    ]
    judgement = judge(equal_values, equal_values, probe_margins, original=original, metrics=METRICS)
    assert judgement.verdict == verdict
    assert ("only hides" in judgement.reason) == (verdict == "INCONCLUSIVE")
    if verdict == "INCONCLUSIVE":
        margins_out = (probe - 60) / 10
        assert f"({margins_out:.1f} in the probe and {margins_out:.1f} in the silhouette)" in judgement.reason


def test_a_probe_that_was_not_put_to_the_model_gives_no_power():
    probe_margins = replace(MARGINS, margin={**MARGIN, "probe": 10.0, "silhouette": 0.1})
    references = [{**each, "probe": 99.0, "silhouette": 0.2} for each in seeds(0)]
    original = [{**each, "ua": 0.0, "silhouette": 0.6} for each in references]
    model = [{**each, "probe": 99.0} for each in seeds(0)]
    judgement = judge(model, references, probe_margins, original=original, metrics=METRICS)
    assert judgement.verdict == Verdict.INCONCLUSIVE and "only hides" in judgement.reason


def test_a_hidden_class_fails_by_the_one_probe_that_sees_it():
    probe_margins = replace(MARGINS, margin={**MARGIN, "probe": 10.0, "silhouette": 0.1})
    equal_values = [{**each, "probe": 99.0, "silhouette": 0.2} for each in seeds(0)]
    hidden = [{**each, "silhouette": 0.6} for each in equal_values]
    original = [{**each, "ua": 0.0} for each in hidden]
    judgement = judge(hidden, equal_values, probe_margins, original=original, metrics=METRICS)
    assert judgement.reason.startswith("FAIL: under-forgetting: silhouette 0.600 against 0.200")


def test_without_the_original_nothing_passes():
    judgement = judge(seeds(), seeds(0), MARGINS, metrics=METRICS)
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert judgement.reason.endswith("the audit can't tell whether there was anything to forget")


def test_without_the_original_a_fault_is_found():
    assert judge(seeds(ua=40.0), seeds(0), MARGINS, metrics=METRICS).verdict == Verdict.FAIL


@for_each(
    ("changes", "expected"),
    [
        ({"ua": 1.4}, "FAIL: under-forgetting: UA 1.4 against 12.9 of the retrained models (margin 3.1)"),
        ({"ua": 40.0}, "FAIL: over-forgetting: UA 40.0 against 12.9 of the retrained models (margin 3.1)"),
        (
            {"auc": 0.7},
            "FAIL: under-forgetting: AUC 0.700 against 0.520 of the retrained models (margin 0.030)",
        ),
        (
            {"auc": 0.4},
            "FAIL: over-forgetting: AUC 0.400 against 0.520 of the retrained models (margin 0.030)",
        ),
        ({"ra": 90.0}, "FAIL: damage: RA 90.00 against 99.50 of the retrained models (margin 0.50)"),
        ({"ta": 80.0}, "FAIL: damage: TA 80.0 against 91.0 of the retrained models (margin 1.0)"),
        ({"ta": 93.0}, "FAIL: unlike retraining: TA 93.0 against 91.0 of the retrained models (margin 1.0)"),
        (
            {"tv": 0.4},
            "FAIL: other answers than retraining: "
            "TV on F 0.400 against 0.150 between two retrained models (at most 0.200)",
        ),
        (
            {"ua": 1.4, "tv": 0.4},
            "FAIL: under-forgetting: UA 1.4 against 12.9 of the retrained models (margin 3.1)",
        ),
        (
            {"ua": 1.4, "ra": 98.9},
            "FAIL: under-forgetting: UA 1.4 against 12.9 of the retrained models (margin 3.1); "
            "damage: RA 98.90 against 99.50 of the retrained models (margin 0.50)",
        ),
        (
            {"ua": 40.0, "auc": 0.56},
            "FAIL: over-forgetting: UA 40.0 against 12.9 of the retrained models (margin 3.1)",
        ),
    ],
)
def test_a_fault_is_named_with_its_direction_and_figures(changes, expected):
    assert reason(**changes) == expected


def test_a_closer_total_variation_than_two_retrains_is_no_fault():
    assert reason(tv=0.0).startswith("PASS")


def test_an_interval_across_the_margin_is_inconclusive_and_says_so():
    sentence = reason(scale=60, ua=12.9 - 3.1)
    assert sentence.startswith(
        "INCONCLUSIVE: more seeds are needed: UA may differ from the retrained models' by -"
    )
    assert sentence.endswith("the margin is 3.1")


def test_more_seeds_can_be_asked_for():
    assert (
        judge(seeds(), seeds(0), MARGINS, seeds_needed=20, metrics=METRICS).reason
        == "INCONCLUSIVE: no verdict: 10 seeds, 20 needed"
    )


@pytest.mark.parametrize("n", [1, 2])
def test_the_verdict_of_few_seeds_counts_them(n):
    sentence = judge(seeds()[:n], seeds(0)[:n], MARGINS, metrics=METRICS).reason
    assert sentence == f"INCONCLUSIVE: no verdict: {n} seed{'s' if n > 1 else ''}, 10 needed"


def test_scores_stand_beside_the_reported_retrains_and_of_two_models_beside_the_calibration_pairs():
    references = [{name: value + 0.5 for name, value in RETRAINED.items() if name != "tv"}] * 10
    scores = judge(seeds(0), references, MARGINS, metrics=METRICS).scores
    assert (scores["ua"].reference, scores["ua"].gap) == (pytest.approx(13.4), pytest.approx(-0.5))
    assert (scores["tv"].reference, scores["tv"].direction) == (0.15, "lower")
    assert scores["mia"].null_band == (19.0, 21.0)


@pytest.mark.parametrize("position", [0, 3])
def test_a_probe_that_one_of_several_models_lacks_is_named_with_the_model(position):
    values = [{**each, "probe": 60.0} for each in seeds(0)]
    del values[position]["probe"]
    with pytest.raises(ValueError, match=f"found no probe of model {position + 1} of 10: measure it"):
        judge(values, seeds(0), MARGINS, metrics=METRICS)


def test_unpaired_or_missing_figures_are_refused():
    with pytest.raises(ValueError, match="expected 10 retrained models, one per seed, found 9"):
        judge(seeds(), seeds()[:9], MARGINS, metrics=METRICS)
    with pytest.raises(ValueError, match="found none"):
        judge([], [], MARGINS, metrics=METRICS)
    figures = [{name: each[name] for name in each if name != "tv"} for each in seeds()]
    with pytest.raises(ValueError, match=r"found no \['tv'\]"):
        judge(figures, figures, MARGINS, metrics=METRICS)

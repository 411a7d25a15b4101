import re
import time
from dataclasses import replace

import numpy as np
import pytest

from audits.answers import draw_evidence, replace_logits, take
from for_each import for_each
from unweave.audits.classifier import accuracy, distance, membership
from unweave.audits.classifier.metrics import GAP, METRICS, measure, measure_pair
from unweave.audits.metrics import gap_of_means, mean_gap
from unweave.families import FAMILIES


def values(ua: float, ra: float, ta: float, mia: float) -> dict[str, float]:
    return {"ua": ua, "ra": ra, "ta": ta, "mia": mia}


@for_each("family", FAMILIES)
def test_every_metric_has_an_id_a_meaning_and_a_limit(family):
    for name, metric in FAMILIES[family].metrics.items():
        assert name == metric.id and re.fullmatch("[a-z][a-z0-9_]*", name)
        assert metric.says.endswith((".", "?")) and metric.cannot.endswith(".")
        assert metric.below or metric.above or metric.cannot.endswith("it has no part in a verdict.")
        assert metric.floor > 0 or not metric.primary
        assert name == "fid" or "fid" not in name + metric.title.lower()


def test_the_primary_metrics_of_a_classifier():
    assert [name for name in METRICS if METRICS[name].primary] == ["ua", "ra", "ta", "auc", "tv"]


def test_measure_gives_each_metric_of_its_function():
    evidence, reference = draw_evidence(1), draw_evidence(2)
    measurements = measure(evidence, reference)
    assert set(measurements) == {metric.id for metric in METRICS.values() if not metric.needs_model}
    assert measurements["ua"] == accuracy.ua(evidence)
    assert measurements["mia"] == membership.mia(evidence)
    assert measurements["tv"] == distance.tv(evidence, reference)
    assert all(type(value) is float for value in measurements.values())


def test_without_reference_the_metrics_of_two_models_are_absent():
    assert set(measure(draw_evidence(1))) == {"ua", "ra", "ta", "mia", "auc"}
    assert set(measure_pair(draw_evidence(1), draw_evidence(2))) == {
        "tv",
        "rank",
        "js",
        "agreement_forget",
        "agreement_test",
        "streisand",
    }


def test_one_nan_makes_every_metric_nan():
    logits = draw_evidence(1).logits["retain"].copy()
    logits[7, 2] = np.nan
    measurements = measure(replace_logits(draw_evidence(1), retain=logits), draw_evidence(2))
    assert set(measurements) == set(measure(draw_evidence(1), draw_evidence(2)))
    assert all(np.isnan(value) for value in measurements.values())


def test_a_nan_reference_is_refused():
    with pytest.raises(ValueError, match="the reference model's logits contain NaN"):
        measure(draw_evidence(1), replace_logits(draw_evidence(2), test=np.full((120, 4), np.nan)))


def test_calibration_stands_for_test_while_tuning():
    evidence, reference = draw_evidence(1), draw_evidence(2)
    other = replace_logits(evidence, test=np.random.default_rng(0).normal(size=(120, 4)))
    assert measure(evidence, reference, on="calibration") == measure(other, reference, on="calibration")
    assert measure(evidence, reference, on="calibration")["ta"] == accuracy.ta(
        evidence.with_test("calibration")
    )
    assert measure(evidence, reference)["ta"] != measure(other, reference)["ta"]


def test_the_order_of_rows_does_not_matter_but_other_examples_are_refused():
    evidence, reference = draw_evidence(1), draw_evidence(2)
    order = np.random.default_rng(0).permutation(100)
    assert measure(take(evidence, forget=order), reference) == measure(evidence, reference)
    with pytest.raises(ValueError, match="same examples as the reference"):
        measure(replace(evidence, ids={**evidence.ids, "forget": np.arange(100) + 5}), reference)


def test_the_mean_gap_by_hand():
    assert GAP == ("ua", "ra", "ta", "mia")
    assert mean_gap(values(3, 99, 90, 10), values(5, 100, 92, 13), METRICS) == 2
    assert mean_gap(values(5, 100, 92, 13), values(5, 100, 92, 13), METRICS) == 0


def test_the_gap_of_means_cancels_what_the_mean_of_gaps_keeps():
    upper, lower, reference = values(6, 100, 92, 13), values(4, 100, 92, 13), values(5, 100, 92, 13)
    assert gap_of_means([upper, lower], [reference, reference], METRICS) == 0
    assert np.mean([mean_gap(each, reference, METRICS) for each in (upper, lower)]) == 0.25


def test_measuring_a_model_of_digits_takes_milliseconds():
    sizes = {"forget": 144, "retain": 1293, "calibration": 180, "test": 180}
    evidence, reference = (
        draw_evidence(1, sizes, boost=5.0, classes=10),
        draw_evidence(2, sizes, boost=5.0, classes=10),
    )
    measure(evidence, reference)
    start = time.process_time()
    for _ in range(10):
        measure(evidence, reference)
    assert (time.process_time() - start) / 10 < 0.1

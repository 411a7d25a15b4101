from itertools import combinations

import numpy as np
import pytest

from audits.answers import draw_evidence, replace_logits
from unweave.audits.classifier.margins import calibrate
from unweave.audits.classifier.metrics import METRICS, measure, measure_pair
from unweave.audits.margins import margins
from unweave.audits.metrics import mean_gap
from unweave.families import FAMILIES

SIZES = {"forget": 100, "retain": 400, "calibration": 100, "test": 200}
PLAIN = {"ra": 100.0, "ta": 90.0, "mia": 10.0, "auc": 0.5}


def test_margin_is_one_and_a_half_quantiles_of_the_pairwise_differences():
    values = [4.0, 8.0, 10.0]
    result = margins(
        [{**PLAIN, "ua": ua} for ua in values],
        [{"tv": 0.1}, {"tv": 0.2}, {"tv": 0.3}],
        sizes=SIZES,
        metrics=METRICS,
    )
    spread = np.quantile([4, 6, 2], 0.95)
    assert result.margin["ua"] == pytest.approx(1.5 * spread)
    assert result.null_band["ua"] == pytest.approx((22 / 3 - spread, 22 / 3 + spread))
    assert result.margin["tv"] == pytest.approx(1.5 * np.quantile([0.1, 0.2, 0.3], 0.95))
    assert result.null_band["tv"] == pytest.approx((0.105, 0.295))
    assert (result.expected["tv"], result.n) == (pytest.approx(0.2), 3)
    assert result.gap_floor == pytest.approx(1.0)


def test_margin_is_never_below_the_floor_nor_below_one_example():
    result = margins([{**PLAIN, "ua": 5.0}] * 3, [{"tv": 0.0}] * 3, sizes=SIZES, metrics=METRICS)
    assert result.margin == {"ua": 1.0, "ra": 0.5, "ta": 0.5, "auc": 0.02, "tv": 0.01}


@pytest.mark.parametrize("family", [each.metrics for each in FAMILIES.values()], ids=FAMILIES)
def test_every_margin_has_a_floor_that_is_a_difference_to_a_person(family):
    metrics = [metric for metric in family.values() if metric.primary or metric.needs_model]
    assert {metric.id for metric in metrics if metric.floor <= 0} == set()
    values = [dict.fromkeys((metric.id for metric in metrics if not metric.needs_reference), 1.0)] * 3
    pairs = [dict.fromkeys((metric.id for metric in metrics if metric.needs_reference), 1.0e-9)] * 3
    parts = {*SIZES, "probe", "attack", *(metric.counts for metric in metrics if metric.counts)}
    result = margins(values, pairs, sizes=dict.fromkeys(parts, 10**6), metrics=family)
    assert result.margin == {metric.id: metric.floor for metric in metrics}


def test_a_share_of_images_has_a_margin_of_one_image():
    sizes, generator = {"forget": 20, "retain": 400, "attack": 50}, FAMILIES["diffusion"].metrics
    values = [dict.fromkeys(("ua", "ra", "kid", "effective"), 1.0)] * 3
    result = margins(values, [{"class_tv": 0.0, "kid_forget": 0.0}] * 3, sizes=sizes, metrics=generator)
    assert (result.margin["ua"], result.margin["class_tv"]) == (5.0, 0.05)


def test_a_band_stays_within_the_range_of_its_metric():
    result = margins(
        [{**PLAIN, "ua": ua, "ra": 99.9} for ua in (0.0, 9.0, 0.5)],
        [{"tv": 0.1}] * 3,
        sizes=SIZES,
        metrics=METRICS,
    )
    assert result.null_band["ua"][0] == 0.0 and result.null_band["ra"][1] <= 100.0


def test_calibrate_measures_every_pair():
    retrains = [draw_evidence(seed) for seed in range(4)]
    values = [measure(each) for each in retrains]
    result = calibrate(retrains)
    tv = [measure_pair(a, b)["tv"] for a, b in combinations(retrains, 2)]
    assert result.expected["tv"] == pytest.approx(np.mean(tv), abs=1e-12)
    assert result.expected["ua"] == pytest.approx(np.mean([each["ua"] for each in values]), abs=1e-12)
    assert result.gap_floor == pytest.approx(
        np.mean([mean_gap(a, b, METRICS) for a, b in combinations(values, 2)]), abs=1e-12
    )
    assert list(result.margin) == ["ua", "ra", "ta", "auc", "tv"]


def test_probes_get_margins_too():
    probes = [{"probe": 90.0, "relearn": float(steps)} for steps in (10, 12)]
    result = calibrate([draw_evidence(0), draw_evidence(1)], probes=probes)
    # the probe asks half of the 100 forget examples: one of them is two points
    assert (result.margin["probe"], result.margin["relearn"]) == (2.0, 3.0)


def test_one_retrain_or_a_broken_one_is_refused():
    with pytest.raises(ValueError, match="at least two retrained models to compare, found 1"):
        calibrate([draw_evidence(0)])
    with pytest.raises(ValueError, match="NaN"):
        calibrate([draw_evidence(0), replace_logits(draw_evidence(1), test=np.full((120, 4), np.nan))])

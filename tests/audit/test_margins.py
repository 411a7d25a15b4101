from itertools import combinations

import numpy as np
import pytest

from audit.answers import answering, drawn
from unweave.audit.margins import calibrate, margins
from unweave.audit.metrics import mean_gap, measure, measure_pair

SIZES = {"forget": 100, "retain": 400, "calibration": 100, "test": 200}
PLAIN = {"ra": 100.0, "ta": 90.0, "mia": 10.0, "auc": 0.5}


def test_margin_is_one_and_a_half_quantiles_of_the_pairwise_differences():
    values = [4.0, 8.0, 10.0]
    found = margins(
        [{**PLAIN, "ua": ua} for ua in values], [{"tv": 0.1}, {"tv": 0.2}, {"tv": 0.3}], sizes=SIZES
    )
    spread = np.quantile([4, 6, 2], 0.95)
    assert found.margin["ua"] == pytest.approx(1.5 * spread)
    assert found.null_band["ua"] == pytest.approx((22 / 3 - spread, 22 / 3 + spread))
    assert found.margin["tv"] == pytest.approx(1.5 * np.quantile([0.1, 0.2, 0.3], 0.95))
    assert found.null_band["tv"] == pytest.approx((0.105, 0.295))
    assert (found.expected["tv"], found.n) == (pytest.approx(0.2), 3)
    assert found.gap_floor == pytest.approx(1.0)


def test_margin_is_never_below_the_floor_nor_below_one_example():
    found = margins([{**PLAIN, "ua": 5.0}] * 3, [{"tv": 0.0}] * 3, sizes=SIZES)
    assert found.margin == {"ua": 1.0, "ra": 0.5, "ta": 0.5, "auc": 0.02, "tv": 0.0}


def test_calibrate_measures_every_pair():
    retrains = [drawn(seed) for seed in range(4)]
    alone = [measure(each) for each in retrains]
    found = calibrate(retrains)
    tv = [measure_pair(a, b)["tv"] for a, b in combinations(retrains, 2)]
    assert found.expected["tv"] == pytest.approx(np.mean(tv), abs=1e-12)
    assert found.expected["ua"] == pytest.approx(np.mean([each["ua"] for each in alone]), abs=1e-12)
    assert found.gap_floor == pytest.approx(
        np.mean([mean_gap(a, b) for a, b in combinations(alone, 2)]), abs=1e-12
    )
    assert list(found.margin) == ["ua", "ra", "ta", "auc", "tv"]


def test_probes_get_margins_too():
    probes = [{"probe": 90.0, "relearn": float(steps)} for steps in (10, 12)]
    found = calibrate([drawn(0), drawn(1)], probes=probes)
    assert (found.margin["probe"], found.margin["relearn"]) == (0.5, 3.0)


def test_one_retrain_or_a_broken_one_is_refused():
    with pytest.raises(ValueError, match="at least two retrained models to compare, found 1"):
        calibrate([drawn(0)])
    with pytest.raises(ValueError, match="NaN"):
        calibrate([drawn(0), answering(drawn(1), test=np.full((120, 4), np.nan))])

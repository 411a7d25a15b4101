"""Answers of models that were trained without an example."""

from dataclasses import replace

import numpy as np
import pytest

from audits.answers import drawn
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.held_out import HELD_OUT_TV, HeldOut
from unweave.audits.classifier.metrics import measure, measure_pair


def fold(evidence: Evidence, rows: slice) -> Evidence:
    """The evidence of a model that was trained without these rows alone."""
    cut = {
        name: {**getattr(evidence, name), "forget": getattr(evidence, name)["forget"][rows]}
        for name in ("logits", "labels", "ids")
    }
    return replace(evidence, **cut)


WHOLE = drawn(1)
FOLDS = HeldOut([fold(WHOLE, slice(0, 60)), fold(WHOLE, slice(60, None))])


def test_one_model_in_two_folds_is_that_model():
    found, own = FOLDS.figures(WHOLE.ids["forget"]), measure(WHOLE)
    assert found["ua"] == pytest.approx(own["ua"]) and found["auc"] == pytest.approx(own["auc"])
    assert FOLDS.distance(WHOLE) == pytest.approx(0.0, abs=1e-12)


def test_the_distance_is_total_variation():
    other = drawn(2)
    assert FOLDS.distance(other) == pytest.approx(measure_pair(other, WHOLE)["tv"])


def test_the_order_of_examples_makes_no_difference():
    rng = np.random.default_rng(0).permutation(100)
    shuffled = fold(drawn(2), rng)
    assert FOLDS.distance(shuffled) == pytest.approx(FOLDS.distance(drawn(2)))
    assert FOLDS.figures(rng) == pytest.approx(FOLDS.figures(np.arange(100)))


def test_only_the_examples_of_the_request_count():
    right = WHOLE.logits["forget"].argmax(1) == WHOLE.labels["forget"]
    assert FOLDS.figures(WHOLE.ids["forget"][right])["ua"] == 0
    assert FOLDS.figures(WHOLE.ids["forget"][~right])["ua"] == 100


def test_models_disagree_as_far_as_they_are_apart():
    ids, other = WHOLE.ids["forget"], drawn(2)
    assert HeldOut([WHOLE, WHOLE]).disagreement(ids) == pytest.approx(0.0, abs=1e-12)
    assert HeldOut([*FOLDS.folds, other]).disagreement(ids) == pytest.approx(measure_pair(other, WHOLE)["tv"])
    with pytest.raises(ValueError, match="found one"):
        FOLDS.disagreement(ids)  # no example has two models


def test_nothing_of_folds_is_expected_of_whole_classes():
    original = {"ua": 0.0, "ra": 98.0, "ta": 90.0, "auc": 0.9, "probe": 99.0, "mia": 1.0}
    found = FOLDS.expect(original, WHOLE.ids["forget"], whole=True)
    assert found == {"ra": 98.0, "ta": 90.0, "ua": 0.0, "auc": 0.0, "probe": 0.0}
    others = HeldOut([*FOLDS.folds, drawn(2)]).expect(original, WHOLE.ids["forget"], whole=False)
    assert others.keys() == {"ra", "ta", "ua", "auc", HELD_OUT_TV}

"""Answers of models that were trained without an example."""

import numpy as np
import pytest

from audits.answers import draw_evidence, take
from unweave.audits.classifier import parquet
from unweave.audits.classifier.held_out import HELD_OUT_TV, HeldOut
from unweave.audits.classifier.metrics import measure, measure_pair

WHOLE = draw_evidence(1)
FOLDS = HeldOut([take(WHOLE, forget=slice(0, 60)), take(WHOLE, forget=slice(60, None))])


def test_one_model_in_two_folds_is_that_model():
    values, model_values = FOLDS.figures(WHOLE.ids["forget"]), measure(WHOLE)
    assert values["ua"] == pytest.approx(model_values["ua"]) and values["auc"] == pytest.approx(
        model_values["auc"]
    )
    assert FOLDS.distance(WHOLE) == pytest.approx(0.0, abs=1e-12)


def test_the_distance_is_total_variation():
    other = draw_evidence(2)
    assert FOLDS.distance(other) == pytest.approx(measure_pair(other, WHOLE)["tv"])


def test_the_order_of_examples_makes_no_difference():
    rng = np.random.default_rng(0).permutation(100)
    shuffled = take(draw_evidence(2), forget=rng)
    assert FOLDS.distance(shuffled) == pytest.approx(FOLDS.distance(draw_evidence(2)))
    assert FOLDS.figures(rng) == pytest.approx(FOLDS.figures(np.arange(100)))


def test_only_the_examples_of_the_request_count():
    is_right = WHOLE.logits["forget"].argmax(1) == WHOLE.labels["forget"]
    assert FOLDS.figures(WHOLE.ids["forget"][is_right])["ua"] == 0
    assert FOLDS.figures(WHOLE.ids["forget"][~is_right])["ua"] == 100


def test_models_disagree_as_far_as_they_are_apart():
    ids, other = WHOLE.ids["forget"], draw_evidence(2)
    assert HeldOut([WHOLE, WHOLE]).disagreement(ids) == pytest.approx(0.0, abs=1e-12)
    assert HeldOut([*FOLDS.folds, other]).disagreement(ids) == pytest.approx(measure_pair(other, WHOLE)["tv"])
    with pytest.raises(ValueError, match="found one"):
        FOLDS.disagreement(ids)  # no example has two models


def test_files_of_folds_are_read_in_part_and_say_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", 16 * 30)  # 30 rows of a file at once
    other = draw_evidence(2)
    folds = [*FOLDS.folds, take(other, forget=slice(0, 60)), take(other, forget=slice(60, None))]
    paths = [tmp_path / f"{i}.parquet" for i in range(len(folds))]
    for each, path in zip(folds, paths, strict=True):
        parquet.save(each, path)
    for ids in (np.arange(20, 40), np.arange(40, 80)):
        loaded_folds = [each for path in paths if (each := parquet.load_unseen(path, ids)) is not None]
        part, all_folds = HeldOut(loaded_folds), HeldOut(folds)
        evidence = take(draw_evidence(3), forget=slice(ids[0], ids[-1] + 1))
        assert part.figures(ids) == pytest.approx(all_folds.figures(ids))
        assert part.distance(evidence) == pytest.approx(all_folds.distance(evidence))
        assert part.disagreement(ids) == pytest.approx(all_folds.disagreement(ids))
        assert sum(len(each.ids["forget"]) for each in loaded_folds) == 2 * len(ids)
        assert all(len(each.ids["retain"]) < len(WHOLE.ids["retain"]) / 10 for each in loaded_folds)
    assert parquet.load_unseen(paths[0], np.arange(80, 90)) is None
    assert parquet.load_unseen(paths[0]).ids["forget"].tolist() == [*range(60)]


def test_nothing_of_folds_is_expected_of_whole_classes():
    original = {"ua": 0.0, "ra": 98.0, "ta": 90.0, "auc": 0.9, "probe": 99.0, "mia": 1.0}
    expectation = FOLDS.expect(original, WHOLE.ids["forget"], whole=True)
    assert expectation == {"ra": 98.0, "ta": 90.0, "ua": 0.0, "auc": 0.0, "probe": 0.0}
    second = HeldOut([*FOLDS.folds, draw_evidence(2)]).expect(original, WHOLE.ids["forget"], whole=False)
    assert second.keys() == {"ra", "ta", "ua", "auc", HELD_OUT_TV}

"""What a page shows first of an erased concept."""

from records import synthetic
from unweave.report.concept_tables import FIRST, concept_of, list_image_attacks, share
from unweave.report.rows import metric_ids, rows


def test_a_share_of_a_retraining_is_in_percent_and_unknown_without_one():
    assert share(90, 900) == 10
    assert share(0, 900) == 0
    assert share(90, None) is None and share(None, 900) is None and share(90, 0) is None


def test_only_a_stage_of_a_concept_has_one():
    stage = synthetic()["stages"]["trace"]
    stage_rows, ids = rows(stage), metric_ids(stage)
    assert concept_of(stage, stage_rows, ids) is None
    data = {**stage["data"], "concept": {"colour": "red", "object": "three"}, "forget": 5, "retain": 15}
    concept = concept_of({**stage, "data": data}, stage_rows, ["kid", "ua", "ua_trained"])
    assert concept is not None and concept.named == "colour = red, object = three"
    assert (concept.forgotten, concept.of) == (5, 20)
    assert concept.metrics == ["ua_trained", "kid"] and len(concept.shares) == len(stage_rows)
    assert set(concept.metrics) <= set(FIRST)


def test_attacks_are_told_from_other_figures():
    assert list_image_attacks(["kid", "relearn_10", "line", "asked"]) == ["asked", "relearn_10", "line"]
    assert list_image_attacks(["ua", "kid"]) == []

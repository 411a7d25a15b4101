from dataclasses import replace

import numpy as np
import pytest

from audits.answers import draw_evidence, replace_logits, take
from for_each import for_each
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.exam import ANSWERED


def without(evidence: Evidence, part: str) -> Evidence:
    fields = (
        {name: field[name] for name in field if name != part}
        for field in (evidence.logits, evidence.labels, evidence.ids)
    )
    return Evidence(*fields)


def test_nan_is_held_and_told():
    evidence = draw_evidence(0)
    assert evidence.finite
    assert not replace_logits(evidence, retain=np.full((300, 4), np.nan)).finite
    assert not replace_logits(evidence, test=np.full((120, 4), np.inf)).finite


@for_each("part", ["forget", "retain", "calibration"])
def test_a_missing_part_is_named(part):
    with pytest.raises(ValueError, match=f"missing \\['{part}'\\]"):
        without(draw_evidence(0), part)


def test_tuning_works_without_test_and_never_reads_it():
    evidence = draw_evidence(0)
    tuning_evidence = without(evidence, "test").with_test("calibration")
    assert (tuning_evidence.logits["test"] == evidence.logits["calibration"]).all()
    assert (evidence.with_test("calibration").labels["test"] == evidence.labels["calibration"]).all()
    with pytest.raises(ValueError, match="no part 'test'"):
        without(evidence, "test").with_test("test")


def test_other_lengths_labels_and_classes_are_refused():
    evidence = draw_evidence(0)
    with pytest.raises(
        ValueError, match=r"as many logits as labels and ids, at least one: found \[99, 100, 100\]"
    ):
        replace_logits(evidence, forget=evidence.logits["forget"][1:])
    with pytest.raises(ValueError, match=r"must lie in 0..3, found 4"):
        replace(evidence, labels={**evidence.labels, "retain": np.full(300, 4)})
    with pytest.raises(ValueError, match=r"expected logits \[batch, 4\] in part 'test', found \[120, 3\]"):
        replace_logits(evidence, test=evidence.logits["test"][:, :3])


def test_a_single_logit_is_refused_with_what_to_write():
    one = draw_evidence(0, classes=2)
    narrow = {part: logits[:, :1] for part, logits in one.logits.items()}
    labels = {part: 0 * each for part, each in one.labels.items()}
    with pytest.raises(ValueError, match="two classes, found 1: write a single logit z as the pair 0, z"):
        replace(one, logits=narrow, labels=labels)


def test_a_forgotten_class_without_calibration_examples_is_refused():
    evidence = draw_evidence(0)
    labels = {**evidence.labels, "calibration": np.zeros(120, dtype=np.int64)}
    with pytest.raises(ValueError, match=r"no example of the forgotten classes \(3,\)"):
        replace(evidence, labels=labels, forgotten_classes=(3,))


def test_like_puts_rows_in_the_order_of_the_reference():
    evidence = draw_evidence(0)
    order = np.random.default_rng(0).permutation(300)
    restored_evidence = take(evidence, retain=order).like(evidence)
    assert all((restored_evidence.logits[part] == evidence.logits[part]).all() for part in evidence.logits)


def test_like_names_what_differs():
    evidence = draw_evidence(0)
    other = replace(evidence, ids={**evidence.ids, "forget": np.arange(1, 101)})
    with pytest.raises(
        ValueError, match="part 'forget' must hold the same examples as the reference: 0 is missing"
    ):
        other.like(evidence)
    other_labels = replace(evidence, labels={**evidence.labels, "test": (evidence.labels["test"] + 1) % 4})
    with pytest.raises(ValueError, match="example 0 of part 'test' has another label"):
        other_labels.like(evidence)
    with pytest.raises(ValueError, match="expected 4 logits"):
        draw_evidence(0, classes=3).like(evidence)
    with pytest.raises(
        ValueError, match="part 'forget' must hold the same examples as the reference: 100 instead of 99"
    ):
        evidence.like(take(evidence, forget=slice(-1)))


def test_the_digest_is_that_of_rows_in_order():
    evidence = draw_evidence(0)
    columns = {part: np.asfortranarray(logits) for part, logits in evidence.logits.items()}
    assert ANSWERED.fingerprint(replace(evidence, logits=columns)) == ANSWERED.fingerprint(evidence)

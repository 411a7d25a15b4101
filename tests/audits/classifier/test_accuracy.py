from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from audits.answers import draw_evidence
from unweave.audits.classifier import accuracy
from unweave.audits.classifier.evidence import Evidence


def four(names: list[int], labels: list[int], forgotten_classes: tuple[int, ...] = ()) -> Evidence:
    """The same examples in every part: classes named by the model, true classes."""
    logits = np.eye(3, dtype=np.float32)[names]
    parts = ("forget", "retain", "calibration", "test")
    return Evidence(
        logits=dict.fromkeys(parts, logits),
        labels=dict.fromkeys(parts, np.array(labels)),
        ids=dict.fromkeys(parts, np.arange(len(labels))),
        forgotten_classes=forgotten_classes,
    )


def test_ua_is_error_and_ra_and_ta_are_accuracy():
    evidence = four([0, 1, 2, 2], [0, 1, 2, 0])
    assert [metric(evidence) for metric in (accuracy.ua, accuracy.ra, accuracy.ta)] == [25.0, 75.0, 75.0]


def test_classes_forgotten_whole_leave_ra_and_ta_but_not_ua():
    evidence = four([0, 1, 2, 2], [0, 1, 2, 0], forgotten_classes=(0,))
    assert [metric(evidence) for metric in (accuracy.ua, accuracy.ra, accuracy.ta)] == [25.0, 100.0, 100.0]


@pytest.mark.parametrize(("metric", "part"), [(accuracy.ra, "retain"), (accuracy.ta, "test")])
def test_accuracies_equal_sklearn(metric, part):
    evidence = draw_evidence(3)
    expected = 100 * accuracy_score(evidence.labels[part], evidence.logits[part].argmax(axis=1))
    assert metric(evidence) == pytest.approx(expected, abs=1e-12)
    assert metric(replace(evidence, forgotten_classes=(1,))) != metric(evidence)


def test_ua_equals_sklearn():
    evidence = draw_evidence(3)
    expected = 100 - 100 * accuracy_score(evidence.labels["forget"], evidence.logits["forget"].argmax(axis=1))
    assert accuracy.ua(evidence) == pytest.approx(expected, abs=1e-12)

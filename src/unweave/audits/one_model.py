"""The record of an audit of one model, from its verdict and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.summary import gap, reference_row
from unweave.audits.verdict import Judgement
from unweave.record.one_model import UNKNOWN, one_model, request_row
from unweave.result import Result
from unweave.tasks.classifier import Classifier
from unweave.weights.cost import Cost

Subject = Result | Evidence


def audit_record(
    subject: Subject,
    judgement: Judgement,
    values: Sequence[Values],
    references: Sequence[Values],
    calibration_margins: Margins | None,
    *,
    metrics: Mapping[str, Metric],
    sheets: Mapping[str, str] | None = None,
    retraining: Cost | None = None,
    attacks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of one model.

    Args:
        subject: The audited model.
        judgement: Its verdict.
        values: Its metrics, compared with each retrained model.
        references: The metrics of each retrained model.
        calibration_margins: The margins; None without.
        metrics: The metrics by name.
        sheets: Pictures of the answers, by model.
        retraining: The cost of one retraining; None if unknown.
        attacks: The attacks of the audit, and what they found; None without.
    """
    is_result = isinstance(subject, Result)
    row = {**audit_row(judgement, values, references, metrics), **method_row(subject, retraining)}
    reference = reference_row(references, calibration_margins, metrics) if references else None
    return one_model(
        {subject.name if is_result else "model": row},
        subject.request() if is_result else evidence_request(subject),
        subject.sizes() if is_result else {part: len(labels) for part, labels in subject.labels.items()},
        family=subject.family if is_result else Classifier.family,
        seeds=[subject.seed] if is_result else [],
        reference=None if reference is None else {**reference, **retraining_row(retraining)},
        margins=None if calibration_margins is None else dict(calibration_margins.margin),
        floor=None if calibration_margins is None else calibration_margins.gap_floor,
        sheets=sheets,
        attacks=attacks,
    )


def add_original(
    whole_record: Mapping[str, Any],
    judgement: Judgement,
    values: Sequence[Values],
    references: Sequence[Values],
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """Adds a row of the untouched original, which the verdict also uses."""
    (stage,) = whole_record["stages"].values()
    row = {"repr": "the untouched original", **UNKNOWN, **audit_row(judgement, values, references, metrics)}
    audited = {**stage, "methods": {"original": row, **stage["methods"]}}
    return {**whole_record, "stages": dict.fromkeys(whole_record["stages"], audited)}


def audit_row(
    judgement: Judgement,
    values: Sequence[Values],
    references: Sequence[Values],
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """The row of one model: its figures and the verdict on it."""
    return {
        "scores": {metric: asdict(score) for metric, score in judgement.scores.items()},
        "gap": gap(values, references, metrics) if references else None,
        "verdict": str(judgement.verdict),
        "reason": judgement.reason,
        "peak_mib": None,
        "failed": None,
    }


def method_row(subject: Subject, retraining: Cost | None) -> dict[str, Any]:
    """The method that made the model, and its cost relative to a retraining."""
    if isinstance(subject, Evidence):
        return {"repr": "a model known by its answers alone", **UNKNOWN}
    whole = None if retraining is None else retraining.seconds
    return subject.row(subject.cost.seconds / whole if whole else None)


def retraining_row(retraining: Cost | None) -> dict[str, Any]:
    """The cost of one retraining; null if unknown, because no training takes zero gradients."""
    if retraining is None:
        return {"seconds": None, "gradient_evaluations": None}
    return {"seconds": retraining.seconds, "gradient_evaluations": retraining.gradients or None}


def evidence_request(evidence: Evidence) -> dict[str, Any]:
    """The forget set, as far as it is known from answers alone."""
    ids, labels = evidence.ids["forget"].tolist(), evidence.labels["forget"].tolist()
    of = len(ids) + len(evidence.ids["retain"])
    return request_row(ids, labels, of=of, model="a model known by its answers alone")

"""The record of an audit of one model, from its verdict and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.exam import Measuring
from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.score import Score
from unweave.audits.summary import gap, reference_row
from unweave.audits.verdict import Judgement
from unweave.record.one_model import UNKNOWN, one_model, request_row
from unweave.result import Result
from unweave.tasks.classifier import Classifier
from unweave.weights.cost import Cost


@dataclass(frozen=True)
class GivenModel:
    """A model that is known by its answers, or by its folder.

    Args:
        name: Its name in tables.
        row: Its method and cost, as a record holds them.
        about: The request, as a record holds it.
        data: The sizes of the parts of the data, and further facts.
        family: The word of its family; None if unknown.
        seed: The seed of the method; None if unknown.
    """

    name: str
    row: Mapping[str, Any]
    about: Mapping[str, Any]
    data: Mapping[str, Any]
    family: str | None
    seed: int | None = None


Subject = Result | Evidence | GivenModel


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
    model = as_given(subject, retraining)
    row = {**audit_row(judgement, values, references, metrics), **model.row}
    reference = reference_row(references, calibration_margins, metrics) if references else None
    return one_model(
        {model.name: row},
        model.about,
        model.data,
        family=model.family,
        seeds=[] if model.seed is None else [model.seed],
        reference=None if reference is None else {**reference, **retraining_row(retraining)},
        margins=None if calibration_margins is None else dict(calibration_margins.margin),
        floor=None if calibration_margins is None else calibration_margins.gap_floor,
        sheets=sheets,
        attacks=attacks,
    )


def as_given(subject: Subject, retraining: Cost | None = None) -> GivenModel:
    """The facts about a model; its cost is relative to that of a retraining, if that is known."""
    if isinstance(subject, GivenModel):
        return subject
    if isinstance(subject, Evidence):
        sizes = {part: len(labels) for part, labels in subject.labels.items()}
        row = {"repr": "a model known by its answers alone", **UNKNOWN}
        return GivenModel("model", row, evidence_request(subject), sizes, Classifier.family)
    seconds = None if retraining is None else retraining.seconds
    row = subject.row(subject.cost.seconds / seconds if seconds else None)
    return GivenModel(subject.name, row, subject.request(), subject.sizes(), subject.family, subject.seed)


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
    full_stage = {**stage, "methods": {"original": row, **stage["methods"]}}
    return {**whole_record, "stages": dict.fromkeys(whole_record["stages"], full_stage)}


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


def as_one_model(exam: Measuring[Any], judgement: Judgement) -> Judgement:
    """The judgement with scores of one model, without intervals that need several."""
    scores = {name: drop_interval(exam, name, each) for name, each in judgement.scores.items()}
    return replace(judgement, scores=scores)


def drop_interval(exam: Measuring[Any], name: str, score: Score) -> Score:
    """Removes the interval of a score that compares with no reference: one model has no spread."""
    nan = float("nan")
    return score if exam.metrics[name].needs_reference else replace(score, n=1, low=nan, high=nan)

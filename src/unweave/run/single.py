"""The record of one model, audited or not yet: a stage of one method."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unweave.audit.evidence import PARTS, Evidence
from unweave.audit.margins import Margins
from unweave.audit.metrics import METRICS, Metric, Values
from unweave.audit.verdict import Judgement, Verdict
from unweave.run import record
from unweave.run.cell import curves
from unweave.run.verdicts import gap, reference_row
from unweave.unlearn import Result

Subject = Result | Evidence
UNKNOWN: Mapping[str, Any] = {"seconds": None, "gradient_evaluations": None, "trace": {}}
"""The cost of a model that was given."""


def unaudited(result: Result) -> dict[str, Any]:
    """The record of a model that nothing was measured of."""
    reason = "INCONCLUSIVE: no verdict: the model was not audited yet"
    judgement = Judgement(Verdict.INCONCLUSIVE, reason, {}, {})
    return single_record(result, judgement, [], [], None)


def single_record(
    subject: Subject,
    judgement: Judgement,
    values: Sequence[Values],
    references: Sequence[Values],
    fixed: Margins | None,
    *,
    metrics: Mapping[str, Metric] = METRICS,
    sheets: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The record of one model.

    Args:
        subject: What was audited.
        judgement: Its verdict.
        values: Its metrics, beside each retrained model.
        references: The metrics of each retrained model.
        fixed: The margins, if there are any.
        metrics: What each name means.
        sheets: Pictures of what models answer, by name.
    """
    name = subject.name if isinstance(subject, Result) else "model"
    row = {**told(subject), **judged(judgement, values, references, metrics)}
    stage = {
        "recipe": {},
        "seeds": [subject.seed] if isinstance(subject, Result) else [],
        "data": sizes(subject),
        "margins": None if fixed is None else dict(fixed.margin),
        "reference": reference_row(references, fixed, metrics)
        if references
        else {"scores": {}, "null_band": {}},
        "methods": {name: row},
        "floor": None if fixed is None else fixed.gap_floor,
        **({"sheets": dict(sheets)} if sheets else {}),
    }
    return {"schema": record.SCHEMA, "environment": record.environment(), "stages": {"audit": stage}}


def beside_original(
    made: Mapping[str, Any],
    judgement: Judgement,
    values: Sequence[Values],
    references: Sequence[Values],
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """The record of one model with a row of the untouched original, which the verdict rests on as well."""
    (stage,) = made["stages"].values()
    row = {"repr": "the untouched original", **UNKNOWN, **judged(judgement, values, references, metrics)}
    audited = {**stage, "methods": {"original": row, **stage["methods"]}}
    return {**made, "stages": dict.fromkeys(made["stages"], audited)}


def judged(
    judgement: Judgement,
    values: Sequence[Values],
    references: Sequence[Values],
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """The figures of one model, and the verdict on it."""
    return {
        "scores": {metric: asdict(score) for metric, score in judgement.scores.items()},
        "gap": gap(values, references, metrics) if references else None,
        "verdict": str(judgement.verdict),
        "reason": judgement.reason,
        "cost": None,
        "peak_mib": None,
        "failed": None,
    }


def told(subject: Subject) -> dict[str, Any]:
    """What is known of the method that made the model."""
    if isinstance(subject, Evidence):
        return {"repr": "a model known by its answers alone", **UNKNOWN}
    spent = {"seconds": subject.cost.seconds, "gradient_evaluations": subject.cost.gradients}
    return {"repr": repr(subject.method), **spent, "trace": curves(subject.traces, subject.curves)}


def sizes(subject: Subject) -> dict[str, Any]:
    """The numbers of examples of the parts, and the digest of the split where there is one."""
    if isinstance(subject, Evidence):
        return {part: len(labels) for part, labels in subject.labels.items()}
    gone = list(subject.split.forgotten_classes)
    known = {"digest": subject.split.digest(), "forgotten_classes": gone}
    return {**known, **{part: len(subject.split.part(part)[1]) for part in PARTS}}

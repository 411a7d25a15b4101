"""The record of one model, audited or not yet: a stage of one method."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unweave.audit.evidence import PARTS, Evidence
from unweave.audit.margins import Margins
from unweave.audit.metrics import METRICS, Metric, Values
from unweave.audit.verdict import Judgement, Verdict
from unweave.problem import Cost
from unweave.run import record
from unweave.run.cell import curves
from unweave.run.verdicts import gap, reference_row
from unweave.unlearn import Result

Subject = Result | Evidence
UNKNOWN: Mapping[str, Any] = {"seconds": None, "gradient_evaluations": None, "cost": None, "trace": {}}
"""The cost of a model that was given."""
SHOWN = 5
"""Ids of a request that its record names: who was deleted is no more widely told than it has to be."""


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
    retraining: Cost | None = None,
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
        retraining: What one retraining takes, where that was seen.
    """
    name = subject.name if isinstance(subject, Result) else "model"
    row = {**judged(judgement, values, references, metrics), **told(subject, retraining)}
    reference = reference_row(references, fixed, metrics) if references else {"scores": {}, "null_band": {}}
    stage = {
        "recipe": {},
        "seeds": [subject.seed] if isinstance(subject, Result) else [],
        "request": request_of(subject),
        "data": sizes(subject),
        "margins": None if fixed is None else dict(fixed.margin),
        "reference": {**reference, **seen(retraining)} if references else reference,
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
        "peak_mib": None,
        "failed": None,
    }


def told(subject: Subject, retraining: Cost | None) -> dict[str, Any]:
    """What is known of the method that made the model, and what it cost beside a retraining."""
    if isinstance(subject, Evidence):
        return {"repr": "a model known by its answers alone", **UNKNOWN}
    whole = None if retraining is None else retraining.seconds
    spent = {"seconds": subject.cost.seconds, "gradient_evaluations": subject.cost.gradients}
    spent["cost"] = subject.cost.seconds / whole if whole else None
    return {"repr": repr(subject.method), **spent, "trace": curves(subject.traces, subject.curves)}


def seen(retraining: Cost | None) -> dict[str, Any]:
    """What one retraining takes; null where that was not seen: none takes no gradient."""
    if retraining is None:
        return {"seconds": None, "gradient_evaluations": None}
    return {"seconds": retraining.seconds, "gradient_evaluations": retraining.gradients or None}


def request_of(subject: Subject) -> dict[str, Any]:
    """What was deleted: how many examples, the first of their ids, their classes, and from which model."""
    if isinstance(subject, Evidence):
        ids, labels = subject.ids["forget"].tolist(), subject.labels["forget"].tolist()
        of, model = len(ids) + len(subject.ids["retain"]), "a model known by its answers alone"
    else:
        split, places = subject.split, subject.split.forget[:SHOWN].tolist()
        ids = places if split.train.names is None else [split.train.names[place] for place in places]
        labels = split.train.labels[split.forget].tolist()
        of, model = len(split.train), type(subject.original).__name__
    counts = {str(label): count for label, count in sorted(Counter(labels).items())}
    facts = {"examples": len(labels), "of": of, "ids": ids[:SHOWN], "classes": counts}
    return {**facts, "model": model, "asked": None, "date": None}


def requested(made: Mapping[str, Any], facts: Mapping[str, str | None]) -> dict[str, Any]:
    """The record of one model with what only its caller knows of the request.

    Args:
        made: From `single_record`.
        facts: The model, as its user calls it; how the request was asked; and the date of the deletion.
    """
    (stage,) = made["stages"].values()
    about = {**stage, "request": {**stage["request"], **facts}}
    return {**made, "stages": dict.fromkeys(made["stages"], about)}


def sizes(subject: Subject) -> dict[str, Any]:
    """The numbers of examples of the parts, and the digest of the split where there is one."""
    if isinstance(subject, Evidence):
        return {part: len(labels) for part, labels in subject.labels.items()}
    gone = list(subject.split.forgotten_classes)
    known = {"digest": subject.split.digest(), "forgotten_classes": gone}
    return {**known, **{part: len(subject.split.part(part)[1]) for part in PARTS}}

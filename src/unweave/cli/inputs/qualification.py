"""Audits a run without retraining, from a folder of `unweave qualify`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unweave.auditing import Audit
from unweave.audits.classifier import parquet
from unweave.audits.classifier.held_out import HELD_OUT_TV, HeldOut, Ids
from unweave.audits.exam import Exam
from unweave.audits.like_requests import About, LikeRequest, judge_by_like, nearest_stratum
from unweave.audits.one_model import add_original, audit_record
from unweave.audits.references import Answers
from unweave.bench.agreement import smallest_margins
from unweave.bench.cell import MEASURING_FORMAT, METHODS_FORMAT, REFERENCE
from unweave.bench.qualification import describe, silhouettes
from unweave.cli.project import Project
from unweave.descent.train import TRAINING_FORMAT, digest
from unweave.record import record
from unweave.record.digest import digest_of
from unweave.record.files import sha256
from unweave.result import Result

SHARED_FACTS = {
    "family": "the family",
    "model": "the original's weights",
    "data": "the data",
    "training": "the code or the recipe that trains (or unweave's methods, since changed)",
    "settings": "the method and its settings",
}
"""The facts that a run and its qualification must share, in words."""


@dataclass(frozen=True)
class Qualification:
    """A qualification of the model and the method of a run.

    Args:
        digest: The digest of its record.
        requests: The proxy requests.
        folds: The file of answers of each model that was trained without a fold.
        agreement: How often verdicts without references agreed with those from them.
    """

    digest: str
    requests: list[LikeRequest]
    folds: Sequence[Path]
    agreement: Sequence[Mapping[str, Any]]

    def held_out(self, ids: Ids) -> HeldOut:
        """The answers about some examples of the models that were trained without them; reads no others."""
        found = (parquet.load_unseen(path, ids) for path in self.folds)
        return HeldOut([each for each in found if each is not None])


def facts_of(project: Project, weights: str, settings: str) -> dict[str, str]:
    """The facts that a run and its qualification must share.

    Args:
        project: The model with its data.
        weights: The digest of the original's weights.
        settings: The method, with all of its settings.
    """
    data = project.split(torch.tensor([0])).digest("mixed", "calibration", "test")
    training = {key: fact for key, fact in project.facts.items() if key != "project"}  # without its place
    training["formats"] = [TRAINING_FORMAT, METHODS_FORMAT, MEASURING_FORMAT]
    facts = {"family": project.family.name, "model": weights, "data": data, "training": digest(training)}
    return {**facts, "settings": settings}


def read_qualification(folder: Path, facts: Mapping[str, str]) -> Qualification:
    """Reads the folder of a qualification.

    Raises:
        ValueError: If it is no such folder, is not finished or was changed, or is about something else.
    """
    content = record.load(folder) if (folder / record.FILE).is_file() else {}
    if "qualification" not in content:
        raise ValueError(
            f"--qualified must be a finished folder of unweave qualify, found none at {folder}: if it was "
            "interrupted, give the same qualify command again, which resumes"
        )
    qualification = content["qualification"]
    for name, what in SHARED_FACTS.items():
        if qualification[name] != facts[name]:
            raise ValueError(
                f"--qualified must be about this run: {what} of {folder} is {shorten(qualification[name])}, "
                f"of the run {shorten(facts[name])}: qualify this model with this method"
            )
    requests = [
        LikeRequest(**{**each, "about": About(**each["about"])})
        for each in qualification["requests"].values()
    ]
    folds = [find_fold(folder, name, expected) for name, expected in qualification["folds"].items()]
    return Qualification(digest_of(content), requests, folds, qualification["agreement"])


def find_fold(folder: Path, name: str, expected: str) -> Path:
    """The file of answers of a model that was trained without a fold, as they were recorded."""
    path = folder / "cells" / name / f"{REFERENCE}.parquet"
    if not path.is_file() or sha256(path) != expected:
        problem = "was changed" if path.is_file() else "is missing"
        raise ValueError(f"{path} {problem}: delete the folder {folder / 'cells' / name}, and qualify again")
    return path


def shorten(text: str) -> str:
    """The beginning of a long text, such as a digest."""
    return text if len(text) <= 60 else f"{text[:12]}..."


def audit_by_qualification(
    result: Result,
    answers: tuple[Answers[Any], Answers[Any]],
    exam: Exam[Any],
    qualification: Qualification,
) -> Audit:
    """Judges a run by the like requests of a qualification.

    Args:
        result: The run.
        answers: The answers of its model and of the original.
        exam: The questions to both.
        qualification: The qualification.
    """
    found, before = answers
    split, ids = result.split, found.found.ids["forget"]
    held_out = qualification.held_out(ids)
    about = describe(split, ids, held_out, silhouettes(result.original, split, split.forget))
    match = nearest_stratum(about, qualification.requests)
    values, original = ({**each.measure(exam)} for each in answers)
    expected = held_out.expect(original, ids, whole=about.whole)
    if HELD_OUT_TV in expected:
        values[HELD_OUT_TV], original[HELD_OUT_TV] = (
            held_out.distance(each.found) for each in (found, before)
        )
    smallest = smallest_margins(exam.sizes, exam.metrics)
    judgement, forecast = judge_by_like(
        values, original, expected, match, smallest=smallest, metrics=exam.metrics
    )
    audit_content = audit_record(result, judgement, [values], [], forecast, metrics=exam.metrics)
    untouched, _ = judge_by_like(
        original, original, expected, match, smallest=smallest, metrics=exam.metrics, gate=False
    )
    audit_content = add_original(audit_content, untouched, [original], [], exam.metrics)
    facts = {
        "digest": qualification.digest,
        "stratum": match.stratum,
        "requests": len(match.like),
        "uncovered": list(match.uncovered),
        "about": asdict(about),
        "like": [asdict(each.about) for each in match.like],
        "agreement": qualification.agreement,
    }
    (stage,) = audit_content["stages"].values()
    stages = {name: {**stage, "qualified": facts} for name in audit_content["stages"]}
    return Audit(judgement, found.found, {**audit_content, "stages": stages}, exam)

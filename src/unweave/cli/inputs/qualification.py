"""A folder of `unweave qualify`, for an audit without retraining."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unweave.audits.classifier import parquet
from unweave.audits.classifier.held_out import HeldOut, Ids
from unweave.audits.like_requests import About, LikeRequest
from unweave.bench.cell import MEASURING_FORMAT, METHODS_FORMAT, REFERENCE
from unweave.cli.project import Project
from unweave.descent.train import TRAINING_FORMAT, digest
from unweave.record import record
from unweave.record.digest import digest_of
from unweave.record.files import sha256

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
        answers = (parquet.load_unseen(path, ids) for path in self.folds)
        return HeldOut([each for each in answers if each is not None])


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
                f"--qualified must be about this run, but it differs in {what}: {folder} has "
                f"{select_differing(qualification[name], facts[name])}, the run has "
                f"{select_differing(facts[name], qualification[name])}: qualify this model with this method"
            )
    requests = [
        LikeRequest(**{**each, "about": About(**each["about"])})
        for each in qualification["requests"].values()
    ]
    folds = [find_fold(folder, name, file_digest) for name, file_digest in qualification["folds"].items()]
    return Qualification(digest_of(content), requests, folds, qualification["agreement"])


def find_fold(folder: Path, name: str, file_digest: str) -> Path:
    """The file of answers of a model that was trained without a fold, as they were recorded."""
    path = folder / "cells" / name / f"{REFERENCE}.parquet"
    if not path.is_file() or sha256(path) != file_digest:
        problem = "was changed" if path.is_file() else "is missing"
        raise ValueError(f"{path} {problem}: delete the folder {folder / 'cells' / name}, and qualify again")
    return path


def select_differing(text: str, other: str) -> str:
    """The settings of a method that another one lacks, or the beginning of a digest."""
    other_parts = other.split(", ")
    return shorten(", ".join(each for each in text.split(", ") if each not in other_parts) or text)


def shorten(text: str) -> str:
    """The beginning of a long text, such as a digest."""
    return text if len(text) <= 60 else f"{text[:12]}..."

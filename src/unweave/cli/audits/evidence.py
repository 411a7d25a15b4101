"""`unweave audit --evidence`: audits a model by its answers, in parquet files of any origin."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from unweave.auditing import audit
from unweave.audits.attack_runs.plan import Request
from unweave.audits.classifier import parquet
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.margins import RETRAINS
from unweave.audits.verdict import SEEDS
from unweave.cli.inputs import out
from unweave.cli.options import CommonFlags
from unweave.cli.terminal.show_audit import print_audit
from unweave.record.files import sha256
from unweave.record.one_model import add_request


def audit_evidence(
    evidence: Path,
    reference: Path | None,
    original: Path | None,
    request: Request | None,
    flags: CommonFlags,
) -> int:
    """Audits a model by its answers."""
    if reference is None:
        requirement = "--reference, a folder with the answers of retrained models"
        raise ValueError(f"--evidence needs {requirement}: a figure means nothing without theirs")
    files = list_files(reference)
    subject = read_evidence(evidence)
    models = [read_evidence(path, like=subject) for path in files]
    original_answers = None if original is None else read_evidence(original, like=subject)
    n = len(models) - (RETRAINS if len(models) >= SEEDS + RETRAINS else 0)
    attacks, tier = (None, None) if request is None else (request.names, request.tier)
    outcome = audit(
        subject, models[:n], calibration=models[n:], original=original_answers, attacks=attacks, tier=tier
    )
    sources = [evidence, *files, *([] if original is None else [original])]
    facts = {"verb": "audit", "evidence": [sha256(path) for path in sources]}
    facts |= {} if request is None else {"attacks": asdict(request)}
    place = out.choose_folder(flags.out or Path("unweave-audit"), facts)
    outcome = replace(outcome, record=add_request(outcome.record, {"model": evidence.name}))
    with out.open_folder(place, facts):
        outcome.save(place)
    return print_audit(outcome, place, flags)


def read_evidence(path: Path, like: Evidence | None = None) -> Evidence:
    """Opens the answers of a model; a class without retain examples counts as forgotten whole."""
    evidence = parquet.open_evidence(path, like=like)
    forget_classes, retain_classes = (
        set(np.unique(evidence.labels[part]).tolist()) for part in ("forget", "retain")
    )
    return replace(evidence, forgotten_classes=tuple(sorted(forget_classes - retain_classes)))


def list_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, by name.

    Raises:
        ValueError: If there are none.
    """
    if not folder.is_dir():
        actual = "a file" if folder.exists() else "nothing"
        raise ValueError(
            f"--reference must be a folder with the answers of retrained models, found {actual}: {folder}"
        )
    paths = sorted(folder.glob("*.parquet"), key=natural_key)
    if not paths:
        raise ValueError(f"--reference must hold a parquet file per retrained model, found none in {folder}")
    return paths


def natural_key(path: Path) -> list[tuple[str, int]]:
    """A sort key that compares numbers in names by value: 2 comes before 10."""
    pieces = re.findall(r"(\D*)(\d*)", path.name)
    return [(word, int(number or 0)) for word, number in pieces]

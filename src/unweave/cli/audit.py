"""`unweave audit`: compares a model with models retrained without the data: PASS, FAIL or INCONCLUSIVE."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unweave.auditing import Audit, audit_answers, collect_answer_pair
from unweave.auditing import audit as compare
from unweave.audits.margins import RETRAINS
from unweave.audits.verdict import SEEDS, Verdict
from unweave.cli import answer_files, out, progress, run_folder, show
from unweave.cli.options import DEFAULTS, Shared
from unweave.record import checkpoint, record
from unweave.record.files import sha256
from unweave.record.one_model import add_request
from unweave.report import html
from unweave.report.numbers import number

CALIBRATION = 100
"""The first seed of the calibration models, if the first of the references is 0."""


def audit(
    run: Path | None = None,
    /,
    *,
    evidence: Path | None = None,
    reference: Path | None = None,
    original: Path | None = None,
    references: int = SEEDS,
    jobs: int = 1,
    shared: Shared = DEFAULTS,
) -> int:
    """Compare a model with models retrained without the data: PASS, FAIL or INCONCLUSIVE.

    For a folder of forget, the references are retrained by the project's train() or by the recipe. For any
    other classifier, its answers are enough: a parquet file with the columns part, id, label and logits.

    Args:
        run: The folder that forget wrote.
        evidence: Instead of a run: a parquet file with the model's answers.
        reference: With --evidence: a folder with one parquet file per retrained model. A verdict needs 22:
            the last 12 by name fix the margins, the others are the references.
        original: With --evidence: a parquet file with the original's answers; shows whether there was
            anything to forget.
        references: The number of references to retrain. A verdict needs ten; twelve more models are then
            retrained to fix the margins.
        jobs: The number of worker processes for retraining, with one thread each; 1 uses this process with
            all its threads.
        shared: The flags of every verb.
    """
    if (run is None) == (evidence is None):
        found = "neither" if run is None else "both"
        raise ValueError(f"audit needs either the folder of a run or --evidence, found {found}")
    if evidence is not None:
        return audit_evidence(evidence, reference, original, shared)
    if reference is not None or original is not None:
        raise ValueError("--reference and --original go with --evidence: a run has its own")
    assert run is not None
    return audit_run(run, references, jobs, shared)


def audit_run(run: Path, references: int, jobs: int, shared: Shared) -> int:
    """Audits a folder of forget."""
    if not 0 <= references <= CALIBRATION:
        raise ValueError(f"--references must be in 0..{CALIBRATION}, found {references}")
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, found {jobs}")
    project, split = run_folder.open_run(str(run.resolve()), shared.device)
    seeds, calibration = seeds_of(references if project.retrain else 0, shared.seed or 0)
    digest = split.digest()
    model = copy.deepcopy(project.fresh_model())
    weights = checkpoint.load(run, model, split_digest=digest)["weights"]
    run_folder.refuse_other_published(model, project, run)
    asked = {"verb": "audit", "weights": weights, "facts": project.facts, "references": seeds}
    named = shared.out or run / "audit"
    out.refuse_within(named, project.source, run_folder.read_request(run).get("data"))
    place = out.choose_folder(named, asked, goes_on=extends)
    exam = run_folder.make_exam(run, project, split)
    start = f"Auditing {run}{'' if seeds else ', with no retrained models'}"
    with out.open_folder(place, asked), progress.show_progress(start, quiet=shared.quiet) as listener:
        kept = place / "references"
        result = run_folder.load_result(run, project, split, shared.device)
        given = collect_answer_pair(
            result, exam
        )  # an error that makes the audit useless comes before any retraining
        run_folder.retrain_all(run, [*seeds, *calibration], kept, jobs, shared.device, listener)
        reference = run_folder.make_reference(project, split, seeds, calibration, kept) if seeds else None
        found = audit_answers(result, given, reference, exam=exam)
        found = replace(found, record=add_request(found.record, run_folder.request_facts(run)))
        found.save(place)
    return print_audit(found, place, shared)


def seeds_of(references: int, first: int) -> tuple[list[int], list[int]]:
    """The seeds of the references, and of the calibration models, which only fix the margins.

    Without enough references for a verdict, there are no calibration models.
    """
    seeds = list(range(first, first + references))
    fixing = first + CALIBRATION
    return seeds, list(range(fixing, fixing + RETRAINS)) if references >= SEEDS else []


def extends(asked: out.Asked, found: out.Asked) -> bool:
    """Whether a new request extends an old one: the same model, at least as many references."""
    same = all(asked[key] == found.get(key) for key in asked if key != "references")
    return same and set(found["references"]) <= set(asked["references"])


def audit_evidence(evidence: Path, reference: Path | None, original: Path | None, shared: Shared) -> int:
    """Audits a model by its answers."""
    if reference is None:
        needed = "--reference, a folder with the answers of retrained models"
        raise ValueError(f"--evidence needs {needed}: a figure means nothing without theirs")
    files = answer_files.list_files(reference)
    subject, others = (
        answer_files.read_evidence(evidence),
        [answer_files.read_evidence(path) for path in files],
    )
    fixing = RETRAINS if len(others) >= SEEDS + RETRAINS else 0
    before = None if original is None else answer_files.read_evidence(original)
    compared, calibration = others[: len(others) - fixing], others[len(others) - fixing :]
    found = compare(subject, compared, calibration=calibration, original=before)
    sources = [evidence, *files, *([] if original is None else [original])]
    asked = {"verb": "audit", "evidence": [sha256(path) for path in sources]}
    place = out.choose_folder(shared.out or Path("unweave-audit"), asked)
    found = replace(found, record=add_request(found.record, {"model": evidence.name}))
    with out.open_folder(place, asked):
        found.save(place)
    return print_audit(found, place, shared)


def print_audit(found: Audit, place: Path, shared: Shared) -> int:
    """Prints the verdict, the figures and where they are; returns the exit code."""
    made = record.load(place)
    (stage,) = made["stages"].values()
    row, before = audited_rows(stage)
    spent = {key: row[key] for key in ("seconds", "gradient_evaluations", "cost")}
    if shared.json:
        figures = {key: row[key] for key in ("verdict", "reason", "scores", "gap")}
        figures["original"] = None if before is None else before["scores"]
        places = {"out": str(place), "report": str(place / html.FILE)}
        whole = {key: stage["reference"].get(key) for key in ("seconds", "gradient_evaluations")}
        show.print_json({**figures, "margins": stage["margins"], **spent, "retraining": whole, **places})
    else:
        show.print_verdict(stage, row, before)
        show.print_sentences(*cost_sentence(row, stage["reference"]))
        show.print_lines("", f"Report: {place / html.FILE}")
    return 0 if found.verdict is Verdict.PASS else 1


def audited_rows(stage: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The row of the audited model, and that of the original if it is known."""
    rows = dict(stage["methods"])
    before = rows.pop("original") if len(rows) > 1 else None
    (row,) = rows.values()
    return row, before


def cost_sentence(row: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """A sentence on the cost of a method relative to a retraining; none if the cost is unknown."""
    own, whole = cost_words(row), cost_words(reference)
    if own is None:
        return []
    return ["", f"It took {own}." if whole is None else f"It took {own}; a retraining takes {whole}."]


def cost_words(spent: Mapping[str, Any]) -> str | None:
    """A cost in words; None if the time is unknown."""
    if spent.get("seconds") is None:
        return None
    gradients = spent["gradient_evaluations"]
    counted = "" if gradients is None else f" and {gradients:.0f} gradient evaluations"
    return f"{number(spent['seconds'], 1)} s{counted}"

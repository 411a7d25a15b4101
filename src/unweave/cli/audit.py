"""`unweave audit`: compares a model with models retrained without the data: PASS, FAIL or INCONCLUSIVE."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from unweave.auditing import audit_answers
from unweave.audits.answers import collect_answer_pair
from unweave.audits.attack_runs.budget import Duration, parse_budget
from unweave.audits.attack_runs.plan import Request
from unweave.audits.classifier.prepare_attacks import (
    attack_request,
    attacked_exam,
    measure_budget,
    plan_of_models,
)
from unweave.audits.diffusion.image_attacks import choose_image_attacks, names_for
from unweave.audits.margins import RETRAINS
from unweave.audits.references import find_stored
from unweave.audits.verdict import SEEDS
from unweave.cli.audit_concept import NO_PROMPTS, ConceptFiles, audit_concept, refuse_no_prompts
from unweave.cli.audit_evidence import audit_evidence
from unweave.cli.audit_qualified import audit_qualified
from unweave.cli.inputs import out, run_folder
from unweave.cli.inputs.executor import HERE, Executor
from unweave.cli.options import DEFAULTS, CommonFlags
from unweave.cli.terminal import progress
from unweave.cli.terminal.show_audit import print_audit
from unweave.record import checkpoint, record
from unweave.record.one_model import add_request

REFERENCES = "references"
"""The folder of retrained models."""
CALIBRATION = 100
"""The first seed of the calibration models, if the first of the references is 0."""


def audit(
    run: Path | None = None,
    /,
    *,
    evidence: Path | None = None,
    reference: Path | None = None,
    original: Path | None = None,
    concept: ConceptFiles = NO_PROMPTS,
    references: int | None = None,
    qualified: Path | None = None,
    attacks: str | None = None,
    tier: int | None = None,
    budget: str | None = None,
    executor: Executor = HERE,
    answers_only: bool = False,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Compare a model with models retrained without the data: PASS, FAIL or INCONCLUSIVE.

    For a folder of forget, the references are retrained by the project's train() or by the recipe. For any
    other classifier, its answers are enough: a parquet file with the columns part, id, label and logits. For
    a text-to-image model, --prompts names the file of its prompts, and --reference a folder with one pipeline
    per retrained model.

    Args:
        run: The folder that forget wrote; with --prompts, also the folder of a pipeline.
        evidence: Instead of a run: a parquet file with the model's answers.
        reference: With --evidence: a folder with one parquet file per retrained model; with --prompts: a
            folder with one pipeline per retrained model. A verdict needs 22: the last 12 by name fix the
            margins, the others are the references.
        original: With --evidence: a parquet file with the original's answers, which show whether there was
            anything to forget. With --prompts: the original's folder, if forget did not write the run.
        concept: The files of an audit of a concept.
        references: The number of references to retrain; by default ten, or as many as --tier needs. A verdict
            needs ten; twelve more models are then retrained to fix the margins.
        qualified: The folder of unweave qualify for this model and method. Nothing is retrained: the verdict
            is predicted from proxy requests, and is weaker.
        attacks: Attack the model as well: default, all, or names of unweave attacks separated by commas.
        tier: The largest tier of attacks on a classifier, by the models that they need: 0 the two models, 1
            one retrained model, 2 those of a verdict.
        budget: The time for attacks on a classifier, such as 10m, or the gradient evaluations for each model,
            such as 200. The cheapest attacks run first; the report names those that did not fit. Retraining
            is not counted.
        executor: Where models are retrained.
        answers_only: Store the answers of retrained models and the measurements of attacks, but not the
            models. A later audit with other attacks may need the models.
        flags: The flags of every verb.
    """
    limit = None if budget is None else parse_budget(budget)
    request = attack_request(attacks, tier, limit)
    if (run is None) == (evidence is None):
        found = "neither" if run is None else "both"
        raise ValueError(f"audit needs either the folder of a run or --evidence, found {found}")
    retrains = references is not None or executor not in (HERE, Executor(1)) or answers_only
    refused = (evidence, concept.prompts, reference, request)
    if qualified is not None and (retrains or any(each is not None for each in refused)):
        raise ValueError(
            "--qualified judges a run without retraining: it does not go with --evidence, --prompts, "
            "--reference, --references, --jobs, --ray, --answers-only or --attacks"
        )
    if evidence is not None:
        if concept != NO_PROMPTS or retrains:
            raise ValueError(
                "--prompts, --data, --set, --references, --jobs, --ray and --answers-only don't go with "
                "--evidence"
            )
        return audit_evidence(evidence, reference, original, request, flags)
    assert run is not None
    if concept.prompts is not None:
        if retrains:
            raise ValueError(
                "--references, --jobs, --ray and --answers-only are for retraining, which a text-to-image "
                "model is not here: give --reference"
            )
        outcome, place, absent = audit_concept(run, original, reference, concept, request, flags)
        return print_audit(outcome, place, flags, *absent)
    refuse_no_prompts(run, concept)
    if reference is not None or original is not None:
        raise ValueError("--reference and --original go with --evidence: a run has its own")
    if qualified is not None:
        return audit_qualified(run, qualified, flags)
    count = count_references(references, request)
    return audit_run(run, count, executor, request, flags, keep_models=not answers_only)


def count_references(references: int | None, request: Request | None) -> int:
    """The number of references: as given, or what the largest tier of the attacks allows."""
    if references is not None:
        return references
    tier = None if request is None else request.tier
    return tier if tier in (0, 1) else SEEDS


def audit_run(
    run: Path,
    references: int,
    executor: Executor,
    request: Request | None,
    flags: CommonFlags,
    *,
    keep_models: bool,
) -> int:
    """Audits a folder of forget."""
    if not 0 <= references <= CALIBRATION:
        raise ValueError(f"--references must be in 0..{CALIBRATION}, found {references}")
    asked = run_folder.read_request(run)
    device = flags.device or asked["device"] or "cpu"
    executor.refuse_unfit(device)
    project, split = run_folder.open_run(str(run.resolve()), flags.device)
    seeds, calibration = seeds_of(references if project.retrain else 0, flags.seed or 0)
    weights = run_folder.read_digest(run, project, split)
    facts = {"verb": "audit", "weights": weights, "facts": project.facts, "references": seeds}
    facts |= {} if request is None else {"attacks": asdict(request)}
    folder = flags.out or run / "audit"
    out.refuse_within(folder, project.source, asked.get("data"))
    place = out.choose_folder(folder, facts, goes_on=extends)
    names = None if request is None else request.names
    exam, request = attacked_exam(run_folder.make_exam(run, project, split), request)
    image_attacks = names if request is None else None
    if request is not None:
        request = repeat_budget(request, place)
    start = f"Auditing {run}{'' if seeds else ', with no retrained models'}"
    with (
        out.open_folder(place, facts),
        progress.show_progress(start, quiet=flags.quiet) as listener,
    ):
        result = run_folder.load_result(run, project, split, flags.device)
        # an error that makes the audit useless comes before any retraining
        answer_pair = collect_answer_pair(result, exam)
        plan = None
        if request is not None:
            measured = measure_budget(request, result, exam, 2 + len(seeds) + len(calibration))
            plan = plan_of_models(measured, exam, len(seeds))
        examined = () if plan is None else tuple(attack.name for attack in plan.model_attacks)
        stored = (out.find_earlier(folder, facts, same_models, REFERENCES) or place) / REFERENCES
        reference = run_folder.make_reference(project, split, seeds, calibration, stored) if seeds else None
        found = []
        if reference is not None and not examined:  # attacks may need more of a stored model
            found = find_stored(reference, split, exam)
        with executor.crew(device, 1) as crew:  # workers hold memory, which the attacks need
            run_folder.retrain_all(
                run, [*seeds, *calibration], stored, crew, flags.device, listener, examined,
                found=found, keep_models=keep_models, image_attacks=image_attacks,
            )  # fmt: skip
        outcome = audit_answers(result, answer_pair, reference, exam=exam, plan=plan)
        outcome = replace(outcome, record=add_request(outcome.record, run_folder.request_facts(run)))
        outcome.save(place)
    absent = absent_attacks(image_attacks, project.family.name)
    disk = disk_sentences(stored)
    return print_audit(outcome, place, flags, *absent, *disk, models=stored if disk else None)


def absent_attacks(names: str | None, family: str) -> list[str]:
    """A sentence on the attacks on a generator that were not chosen; none if all were.

    Args:
        names: The chosen attacks; None without attacks on a generator.
        family: The family of the generator.
    """
    chosen = () if names is None else choose_image_attacks(names, family)
    others = [name for name in names_for(family) if chosen and name not in chosen]
    return [f"Not run: the attacks {', '.join(others)}."] if others else []


def disk_sentences(stored: Path) -> list[str]:
    """A sentence on the disk that retrained models take; none without models.

    Args:
        stored: The folder of the retrained models.
    """
    sizes = [path.stat().st_size for path in stored.glob(f"*/{checkpoint.WEIGHTS}")]
    if not sizes:
        return []
    models = "1 retrained model takes" if len(sizes) == 1 else f"{len(sizes)} retrained models take"
    return [f"{models} {sum(sizes) / 2**20:,.1f} MiB in {stored}; --answers-only stores none."]


def repeat_budget(request: Request, place: Path) -> Request:
    """The request with the gradient evaluations that a finished audit of the same request measured.

    So a repeated audit runs the same attacks, however fast the machine is by then.
    """
    if not isinstance(request.budget, Duration) or not (place / record.FILE).is_file():
        return request
    earlier = json.loads((place / out.CLAIM).read_text(encoding="utf-8")).get("attacks")
    (stage,) = record.load(place)["stages"].values()
    if earlier != asdict(request) or "attacks" not in stage:
        return request
    return replace(request, budget=stage["attacks"]["budget"])


def seeds_of(references: int, first: int) -> tuple[list[int], list[int]]:
    """The seeds of the references, and of the calibration models, which only fix the margins.

    Without enough references for a verdict, there are no calibration models.
    """
    seeds = list(range(first, first + references))
    fixing = first + CALIBRATION
    return seeds, list(range(fixing, fixing + RETRAINS)) if references >= SEEDS else []


def extends(facts: out.Facts, earlier: out.Facts) -> bool:
    """Whether a new request extends an old one: one model, no fewer references, the same attacks or none."""
    attacks = earlier.get("attacks") in (None, facts.get("attacks"))
    fewer = set(earlier.get("references", ())) - set(facts["references"])
    return same_models(facts, earlier) and attacks and not fewer


def same_models(facts: out.Facts, earlier: out.Facts) -> bool:
    """Whether two requests are about one model, whose retrained models they share."""
    return all(facts[key] == earlier.get(key) for key in facts if key not in ("references", "attacks"))

"""`unweave audit`: compares a model with models retrained without the data: PASS, FAIL or INCONCLUSIVE."""

from pathlib import Path

from unweave.audits.attack_runs.budget import parse_budget
from unweave.audits.attack_runs.plan import Request
from unweave.audits.classifier.prepare_attacks import attack_request
from unweave.audits.diffusion.image_attacks import CONCEPTS, choose_image_attacks
from unweave.audits.margins import RETRAINS
from unweave.audits.verdict import SEEDS
from unweave.cli.audits.concept import NO_PROMPTS, ConceptFiles, audit_concept, refuse_no_prompts
from unweave.cli.audits.evidence import audit_evidence
from unweave.cli.audits.qualified import audit_qualified
from unweave.cli.audits.run import audit_run
from unweave.cli.inputs.executor import HERE, Executor
from unweave.cli.options import DEFAULTS, CommonFlags
from unweave.cli.terminal.show_audit import print_audit


def audit(
    run: Path | None = None,
    /,
    *,
    evidence: Path | None = None,
    reference: Path | None = None,
    original: Path | None = None,
    concept: ConceptFiles = NO_PROMPTS,
    references: int | None = None,
    calibration: int | None = None,
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
            needs ten; more models are then retrained to fix the margins.
        calibration: The number of these; by default twelve, which is the fewest.
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
    if attacks is not None and concept.prompts is not None:
        choose_image_attacks(attacks, CONCEPTS)  # its error names the attacks on such a model
    request = attack_request(attacks, tier, limit)
    if (run is None) == (evidence is None):
        choice = "neither" if run is None else "both"
        raise ValueError(f"audit needs either the folder of a run or --evidence, found {choice}")
    counts = references, calibration
    retrains = any(each is not None for each in counts) or executor not in (HERE, Executor(1)) or answers_only
    other_flags = (evidence, concept.prompts, reference, request)
    if qualified is not None and (retrains or any(each is not None for each in other_flags)):
        raise ValueError(
            "--qualified judges a run without retraining: it does not go with --evidence, --prompts, "
            "--reference, --references, --calibration, --jobs, --ray, --answers-only or --attacks"
        )
    if evidence is not None:
        if concept != NO_PROMPTS or retrains:
            raise ValueError(
                "--prompts, --data, --set, --references, --calibration, --jobs, --ray and --answers-only "
                "don't go with --evidence"
            )
        return audit_evidence(evidence, reference, original, request, flags)
    assert run is not None
    if concept.prompts is not None:
        if retrains:
            raise ValueError(
                "--references, --calibration, --jobs, --ray and --answers-only are for retraining, which a "
                "text-to-image model is not here: give --reference"
            )
        outcome, place, sentences = audit_concept(run, original, reference, concept, request, flags)
        return print_audit(outcome, place, flags, *sentences)
    refuse_no_prompts(run, concept)
    if reference is not None or original is not None:
        raise ValueError("--reference and --original go with --evidence: a run has its own")
    if qualified is not None:
        return audit_qualified(run, qualified, flags)
    count = count_references(references, request)
    if calibration is not None and count < SEEDS:
        raise ValueError(f"--calibration is for a verdict, which needs {SEEDS} references, found {count}")
    fixing = RETRAINS if calibration is None else calibration
    return audit_run(run, count, fixing, executor, request, flags, keep_models=not answers_only)


def count_references(references: int | None, request: Request | None) -> int:
    """The number of references: as given, or what the largest tier of the attacks allows."""
    if references is not None:
        return references
    tier = None if request is None else request.tier
    return tier if tier in (0, 1) else SEEDS

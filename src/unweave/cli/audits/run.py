"""`unweave audit FOLDER`: audits a folder of forget beside the models that it retrains."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unweave.auditing import Audit, audit_answers
from unweave.audits.answers import collect_answer_pair
from unweave.audits.attack_runs.budget import Duration
from unweave.audits.attack_runs.plan import Plan, Request, plan_attacks
from unweave.audits.classifier.prepare_attacks import attacked_exam, measure_budget
from unweave.audits.diffusion.image_attacks import choose_image_attacks, list_not_chosen
from unweave.audits.exam import Exam
from unweave.audits.margins import RETRAINS
from unweave.audits.references import Retrain, find_stored
from unweave.audits.verdict import SEEDS
from unweave.bench.workers import Listener
from unweave.cli.inputs import out, run_folder
from unweave.cli.inputs.executor import Executor
from unweave.cli.options import CommonFlags
from unweave.cli.project import Project
from unweave.cli.terminal import progress
from unweave.cli.terminal.show_audit import print_audit
from unweave.record import checkpoint, record
from unweave.record.one_model import add_request
from unweave.result import Result
from unweave.split import Split

REFERENCES = "references"
"""The folder of retrained models."""
SEED_FACTS = ("references", "calibration")
"""The facts of a run that name seeds of retrained models."""

CALIBRATION = 100
"""The first seed of the calibration models, if the first of the references is 0."""


@dataclass(frozen=True)
class RunAudit:
    """The audit of a folder of forget.

    Args:
        run: The folder.
        project: The project of the run.
        split: The split of the run.
        seeds: The seeds of the references.
        calibration: The seeds of the calibration models.
        exam: The questions, with the chosen attacks on a generator.
        request: The attacks on a classifier; none if None.
        image_attacks: The names of the attacks on a generator; none if None.
        device: The device; that of the run if None.
        keep_models: Whether to store retrained models beside their answers.
    """

    run: Path
    project: Project
    split: Split
    seeds: Sequence[int]
    calibration: Sequence[int]
    exam: Exam[Any]
    request: Request | None
    image_attacks: str | None
    device: str | None
    keep_models: bool

    def plan(self, result: Result) -> Plan | None:
        """The attacks on a classifier that the budget allows; None without attacks."""
        if self.request is None:
            return None
        models = 2 + len(self.seeds) + len(self.calibration)
        request = measure_budget(self.request, result, self.exam, models)
        return plan_attacks(request, retrained=len(self.seeds), has_models=True)

    def retrain(
        self, folder: Path, plan: Plan | None, executor: Executor, listener: Listener
    ) -> Retrain | None:
        """Retrains the models that are not stored; None without references."""
        if not self.seeds:
            return None
        reference = run_folder.make_reference(self.project, self.split, self.seeds, self.calibration, folder)
        attacks = () if plan is None else tuple(attack.name for attack in plan.model_attacks)
        # attacks may need more of a stored model
        stored_seeds = [] if attacks else find_stored(reference, self.split, self.exam)
        with executor.crew(device_of(self.run, self.device), 1) as crew:
            run_folder.retrain_all(
                self.run, [*self.seeds, *self.calibration], folder, crew, self.device, listener, attacks,
                stored=stored_seeds, keep_models=self.keep_models, image_attacks=self.image_attacks,
            )  # fmt: skip
        return reference

    def judge(self, folder: Path, executor: Executor, listener: Listener) -> Audit:
        """Compares the model of the run with retrained models; the workers end before the attacks."""
        result = run_folder.load_result(self.run, self.project, self.split, self.device)
        # an error that makes the audit useless comes before any retraining
        answer_pair, plan = collect_answer_pair(result, self.exam), self.plan(result)
        reference = self.retrain(folder, plan, executor, listener)
        outcome = audit_answers(result, answer_pair, reference, exam=self.exam, plan=plan)
        return replace(outcome, record=add_request(outcome.record, run_folder.request_facts(self.run)))


def audit_run(
    run: Path,
    references: int,
    calibration: int,
    executor: Executor,
    request: Request | None,
    flags: CommonFlags,
    *,
    keep_models: bool,
) -> int:
    """Audits a folder of forget.

    Args:
        run: The folder.
        references: The number of references to retrain.
        calibration: The number of calibration models, which only a verdict needs.
        executor: Where they are retrained.
        request: The attacks; none if None.
        flags: The flags of every verb.
        keep_models: Whether to store retrained models beside their answers.
    """
    if not 0 <= references <= CALIBRATION:
        raise ValueError(f"--references must be in 0..{CALIBRATION}, found {references}")
    if calibration < RETRAINS:
        raise ValueError(f"--calibration must be at least {RETRAINS}, found {calibration}")
    executor.refuse_unfit(device_of(run, flags.device))
    project, split = run_folder.open_run(str(run.resolve()), flags.device)
    seeds, fixing = seeds_of(references if project.retrain else 0, calibration, flags.seed or 0)
    weights = run_folder.read_digest(run, project, split)
    facts = {"verb": "audit", "weights": weights, "facts": project.facts, "references": seeds}
    facts |= {} if request is None else {"attacks": asdict(request)}
    facts |= {"calibration": fixing} if len(fixing) > RETRAINS else {}  # earlier versions had no other number
    folder = flags.out or run / "audit"
    out.refuse_within(folder, project.source, run_folder.read_request(run).get("data"))
    place = out.choose_folder(folder, facts, goes_on=extends)
    # for a generator this may train a recogniser
    exam, classifier_request = attacked_exam(run_folder.make_exam(run, project, split), request)
    images = request.names if request is not None and classifier_request is None else None
    classifier_request = repeat_budget(classifier_request, place)
    work = RunAudit(
        run, project, split, seeds, fixing, exam, classifier_request, images, flags.device, keep_models
    )
    start = f"Auditing {run}{'' if seeds else ', with no retrained models'}"
    with (
        out.open_folder(place, facts),
        progress.show_progress(start, quiet=flags.quiet) as listener,
    ):
        reference_folder = (out.find_earlier(folder, facts, same_models, REFERENCES) or place) / REFERENCES
        outcome = work.judge(reference_folder, executor, listener)
        outcome.save(place)
    sentences = absent_attacks(images, project.family.name)
    disk = disk_sentences(reference_folder)
    return print_audit(outcome, place, flags, *sentences, *disk, models=reference_folder if disk else None)


def device_of(run: Path, device: str | None) -> str:
    """The device of retrained models: the given one, or that of the run."""
    return device or run_folder.read_request(run)["device"] or "cpu"


def absent_attacks(names: str | None, family: str) -> list[str]:
    """A sentence on the attacks on a generator that were not chosen; none if all were.

    Args:
        names: The chosen attacks; None without attacks on a generator.
        family: The family of the generator.
    """
    attacks = () if names is None else choose_image_attacks(names, family)
    other_attacks = list_not_chosen(attacks, family)
    return [f"Not run: the attacks {', '.join(other_attacks)}."] if other_attacks else []


def disk_sentences(folder: Path) -> list[str]:
    """A sentence on the disk that retrained models take; none without models.

    Args:
        folder: The folder of the retrained models.
    """
    sizes = [path.stat().st_size for path in folder.glob(f"*/{checkpoint.WEIGHTS}")]
    if not sizes:
        return []
    models = "1 retrained model takes" if len(sizes) == 1 else f"{len(sizes)} retrained models take"
    return [f"{models} {sum(sizes) / 2**20:,.1f} MiB in {folder}; --answers-only stores none."]


def repeat_budget(request: Request | None, place: Path) -> Request | None:
    """The request with the gradient evaluations that a finished audit of the same request measured.

    So a repeated audit runs the same attacks, however fast the machine is by then.
    """
    if request is None or not isinstance(request.budget, Duration):
        return request
    if not (place / record.FILE).is_file():
        return request
    earlier_request = json.loads((place / out.CLAIM).read_text(encoding="utf-8")).get("attacks")
    (stage,) = record.load(place)["stages"].values()
    if earlier_request != asdict(request) or "attacks" not in stage:
        return request
    return replace(request, budget=stage["attacks"]["budget"])


def seeds_of(references: int, calibration: int, first: int) -> tuple[list[int], list[int]]:
    """The seeds of the references, and of the calibration models, which only fix the margins.

    Without enough references for a verdict, there are no calibration models.
    """
    seeds = list(range(first, first + references))
    fixing = first + CALIBRATION
    return seeds, list(range(fixing, fixing + calibration)) if references >= SEEDS else []


def extends(facts: out.Facts, earlier_facts: out.Facts) -> bool:
    """Whether a new request extends an old one: one model, no fewer retrains, the same attacks or none."""
    attacks = earlier_facts.get("attacks") in (None, facts.get("attacks"))
    fewer = [key for key in SEED_FACTS if set(earlier_facts.get(key, ())) - set(facts.get(key, ()))]
    return same_models(facts, earlier_facts) and attacks and not fewer


def same_models(facts: out.Facts, earlier_facts: out.Facts) -> bool:
    """Whether two requests are about one model, whose retrained models they share."""
    return all(facts[key] == earlier_facts.get(key) for key in facts if key not in (*SEED_FACTS, "attacks"))

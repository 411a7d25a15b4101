"""The attacks of an audit, from its request and its models."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from unweave.audits.answers import Answers
from unweave.audits.attack import Attack, Examiner, ModelAnswers
from unweave.audits.attack_runs.budget import Duration, gradients_within
from unweave.audits.attack_runs.compare import AuditedModels
from unweave.audits.attack_runs.controls import MetricFaults
from unweave.audits.attack_runs.plan import Plan, Request, plan_attacks
from unweave.audits.attack_runs.report import AttackReport
from unweave.audits.attack_runs.run import run_attacks
from unweave.audits.classifier.exam import ClassifierExam
from unweave.audits.exam import Exam
from unweave.audits.margins import Margins
from unweave.audits.references import Retrain
from unweave.result import Result


def attack_request(attacks: str | None, tier: int | None, budget: int | Duration | None) -> Request | None:
    """The request for attacks; None without attacks.

    Raises:
        ValueError: If there is a tier or a budget without attacks, or a name is unknown.
    """
    if attacks is not None:
        return Request(attacks, tier, budget)
    if tier is not None or budget is not None:
        raise ValueError("a tier and a budget are of attacks, found none: choose attacks as well")
    return None


def plan_of_answers(request: Request, references: int) -> Plan:
    """The attacks on a model of which only the answers are known; these take no time."""
    if isinstance(request.budget, Duration):
        request = replace(request, budget=None)
    return plan_attacks(request, retrained=references, has_models=False)


def measure_budget(request: Request, result: Result, exam: Exam[Any], models: int) -> Request:
    """The request with its budget in gradient evaluations: a time is divided by the speed of the model.

    Args:
        request: The request for attacks.
        result: The result to audit.
        exam: The questions of the audit.
        models: The number of models that an attack examines.
    """
    if not isinstance(request.budget, Duration):
        return request
    assert isinstance(exam, ClassifierExam)
    forget, device = exam.cuts(("forget",))["forget"], exam.model_device(result.model)
    return replace(request, budget=gradients_within(request.budget, models, result.model, forget, device))


def attacked_exam(exam: Exam[Any], request: Request | None) -> tuple[Exam[Any], Request | None]:
    """The exam with the attacks of a request, and the request if attacks on classifiers remain to be run.

    Attacks on generators are part of their exam.

    Raises:
        ValueError: If a generator is to be attacked by tier or budget, or models of the family can't be.
    """
    if request is None or isinstance(exam, ClassifierExam):
        return exam, request
    from unweave.audits.diffusion.images_exam import ImagesExam  # takes time to import

    if not isinstance(exam, ImagesExam):
        raise ValueError(f"attacks are for classifiers and generators of images, found {type(exam).__name__}")
    refuse_tier_of_generator(request)
    return exam.with_attacks(request.names), None


def refuse_tier_of_generator(request: Request) -> None:
    """Raises if a request has a tier or a budget, which attacks on generators have not."""
    if request.tier is not None or request.budget is not None:
        raise ValueError(
            "a tier and a budget are of attacks on classifiers: of a generator, the setting attacks is the "
            "number of images that each attack draws"
        )


def plan_of_audit(request: Request, reference: Retrain | Sequence[Any] | None) -> Plan:
    """The plan of attacks on a result; on answers alone if its references are known by their answers."""
    if isinstance(reference, Retrain):
        return plan_attacks(request, retrained=len(reference.seeds), has_models=True)
    if reference:
        return plan_of_answers(request, len(reference))
    return plan_attacks(request, retrained=0, has_models=True)


def examiner_of(plan: Plan | None, result: Result, exam: Exam[Any]) -> Examiner | None:
    """The examiner of each model for the attacks of a plan; None if they need its answers alone."""
    if plan is None or not plan.model_attacks:
        return None
    return examine_with(plan.model_attacks, exam, result.original)


def examine_with(attacks: Sequence[Attack], exam: Exam[Any], original: nn.Module) -> Examiner:
    """The examiner of classifiers for some attacks."""
    assert isinstance(exam, ClassifierExam)
    cuts = exam.cuts(("forget", "retain", "calibration"))
    return Examiner(attacks, cuts, original, exam.device, exam.forgotten_classes)


def attack_answers(
    plan: Plan,
    exam: Exam[Any],
    margins: Margins | None,
    model_answers: Answers[Any],
    original_answers: Answers[Any] | None,
    references: Sequence[Answers[Any]],
    calibration_answers: Sequence[Answers[Any]],
) -> AttackReport:
    """Runs a plan; every model answers the same examples in the same order."""

    def put_in_order(each: Answers[Any]) -> ModelAnswers:
        return replace(each, outputs=each.outputs.like(model_answers.outputs))

    original = None if original_answers is None else put_in_order(original_answers)
    models = AuditedModels(
        model_answers, [*map(put_in_order, references)], [*map(put_in_order, calibration_answers)], original
    )
    faults = MetricFaults(exam, {} if margins is None else margins.margin)
    return run_attacks(plan, models, faults)

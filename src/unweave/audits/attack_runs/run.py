"""Runs the attacks of one audit."""

import time
from collections.abc import Sequence
from dataclasses import replace

from unweave.audits.attack import Attack, Check
from unweave.audits.attack_result import AttackResult
from unweave.audits.attack_runs.compare import AuditedModels, Null, figures_of, judge_figures, null_of
from unweave.audits.attack_runs.controls import Faults, run_controls
from unweave.audits.attack_runs.plan import Plan
from unweave.audits.attack_runs.report import AttackReport


def run_attacks(plan: Plan, models: AuditedModels, faults: Faults) -> AttackReport:
    """Runs the attacks of a plan and the controls.

    Args:
        plan: The attacks.
        models: The models; the answers of all are to the same examples in the same order.
        faults: The metrics by which a verdict tells a model from references.

    Raises:
        ValueError: If the answers of a retrained model or of the original are not finite.
    """
    if not models.unlearned.outputs.finite:
        reason = "the answers of the model contain NaN or infinity"
        return AttackReport(leave_out(plan, plan.attacks, reason), models, {}, {})
    checks = check_attacks(plan.attacks, models)
    for attack in plan.attacks:
        if attack.name in checks and not checks[attack.name].is_valid:
            plan = leave_out(plan, [attack], checks[attack.name].says)
    results, seconds, nulls = {}, {}, []
    for attack in plan.attacks:
        start = time.perf_counter()
        null = null_of(attack, models)
        attack_results = results_of(attack, models, null)
        if attack_results:
            results[attack.name], seconds[attack.name] = attack_results, time.perf_counter() - start
            nulls.append((attack, null))
    empty = [attack for attack in plan.attacks if attack.name not in results]
    plan = leave_out(plan, empty, "it has no figure here: too few examples, or a model without an update")
    notes = {name: each.says for name, each in checks.items() if name in results}
    controls = run_controls(models, nulls, faults)
    return AttackReport(plan, models, results, seconds, controls, notes)


def check_attacks(attacks: Sequence[Attack], models: AuditedModels) -> dict[str, Check]:
    """What each attack that examined the model says about its own figures."""
    return {
        attack.name: attack.check(models.unlearned, models.original)
        for attack in attacks
        if attack.check is not None and attack.name in models.unlearned.measurements
    }


def leave_out(plan: Plan, attacks: Sequence[Attack], reason: str) -> Plan:
    """The plan without some attacks, which are not run for one reason."""
    names = {attack.name for attack in attacks}
    remainder = [attack for attack in plan.attacks if attack.name not in names]
    return replace(plan, attacks=remainder, not_run={**plan.not_run, **dict.fromkeys(names, reason)})


def results_of(attack: Attack, models: AuditedModels, null: Null) -> dict[str, AttackResult]:
    """The results of one attack, by figure."""
    baseline = {} if models.original is None else figures_of(attack, models.original, models.retrained)
    figures = figures_of(attack, models.unlearned, models.retrained)
    return judge_figures(attack, figures, null, {name: each.value for name, each in baseline.items()})

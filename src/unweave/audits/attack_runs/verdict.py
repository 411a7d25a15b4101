"""The verdict of an audit with attacks."""

from dataclasses import replace

from unweave.audits.attack_runs.plan import Plan
from unweave.audits.attack_runs.report import AttackReport
from unweave.audits.verdict import Judgement, Verdict, as_verdict


def judge_with_attacks(judgement: Judgement, report: AttackReport) -> Judgement:
    """Changes the verdict of an audit if its attacks or controls require it.

    A finding turns a PASS into a FAIL, and the reason of an INCONCLUSIVE verdict names it. A control that is
    judged wrongly makes any verdict INCONCLUSIVE. If no attack ran, nothing passes.
    """
    failures = [each.says for each in report.controls if not each.is_right]
    if failures and judgement.verdict is not Verdict.INCONCLUSIVE:
        reason = f"the audit is invalid: {'; '.join(failures)}"
        return as_verdict(judgement, Verdict.INCONCLUSIVE, reason)
    if judgement.verdict is Verdict.INCONCLUSIVE and not failures:
        return replace(judgement, reason="; ".join([judgement.reason, *report.faults]))
    if judgement.verdict is not Verdict.PASS:
        return judgement
    if report.faults:
        return as_verdict(judgement, Verdict.FAIL, "; ".join(report.faults))
    gaps = [f"{name} {cause}" for name, cause in report.unjudged.items()]
    if not report.judging:
        omissions = [f"{name}: {cause}" for name, cause in requested_but_not_run(report.plan).items()]
        problem = "no attack could judge" if gaps else "no attack was run"
        return as_verdict(judgement, Verdict.INCONCLUSIVE, f"{problem}: {'; '.join([*gaps, *omissions])}")
    clauses = [f"attacks that find nothing: {', '.join(report.judging)}"]
    clauses += [f"not judged: {'; '.join(gaps)}"] if gaps else []
    return replace(judgement, reason="; ".join([judgement.reason, *clauses]))


def requested_but_not_run(plan: Plan) -> dict[str, str]:
    """The attacks that were asked for and did not run."""
    return {name: reason for name, reason in plan.not_run.items() if reason != "not asked for"}

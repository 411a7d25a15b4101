"""`unweave audit FOLDER --qualified`: audits a run without retraining, from a folder of `unweave qualify`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unweave.auditing import Audit
from unweave.audits.answers import Answers, collect_answer_pair
from unweave.audits.classifier.held_out import HELD_OUT_TV
from unweave.audits.exam import Exam
from unweave.audits.like_requests import judge_by_like, nearest_stratum
from unweave.audits.one_model import add_original, audit_record
from unweave.bench.agreement import smallest_margins
from unweave.bench.qualification import describe, silhouettes
from unweave.cli.inputs import out, run_folder
from unweave.cli.inputs.qualification import Qualification, facts_of, read_qualification
from unweave.cli.options import CommonFlags
from unweave.cli.terminal import progress
from unweave.cli.terminal.show_audit import print_audit
from unweave.record import checkpoint
from unweave.record.one_model import add_request
from unweave.result import Result


def audit_qualified(run: Path, qualified: Path, flags: CommonFlags) -> int:
    """Audits a folder of forget from the folder of a qualification."""
    project, split = run_folder.open_run(str(run.resolve()), flags.device)
    result = run_folder.load_result(run, project, split, flags.device)
    original = checkpoint.contents(result.original.state_dict())
    about = facts_of(project, original, repr(result.method))
    qualification = read_qualification(qualified, about)
    weights = checkpoint.contents(result.model.state_dict())
    facts = {"verb": "audit", "weights": weights, "facts": project.facts, "qualified": qualification.digest}
    folder = flags.out or run / "audit-qualified"
    out.refuse_within(folder, project.source, run_folder.read_request(run).get("data"))
    place = out.choose_folder(folder, facts)
    exam = run_folder.make_exam(run, project, split)
    start = f"Auditing {run} by {qualified}, with no retrained models"
    with out.open_folder(place, facts), progress.show_progress(start, quiet=flags.quiet):
        answer_pair = collect_answer_pair(result, exam)
        outcome = judge_by_qualification(result, answer_pair, exam, qualification)
        outcome = replace(outcome, record=add_request(outcome.record, run_folder.request_facts(run)))
        outcome.save(place)
    return print_audit(outcome, place, flags)


def judge_by_qualification(
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
    model_answers, original_answers = answers
    split, ids = result.split, model_answers.outputs.ids["forget"]
    held_out = qualification.held_out(ids)
    about = describe(split, ids, held_out, silhouettes(result.original, split, split.forget))
    match = nearest_stratum(about, qualification.requests)
    values, original = ({**each.measure(exam)} for each in answers)
    expectation = held_out.expect(original, ids, whole=about.whole)
    if HELD_OUT_TV in expectation:
        values[HELD_OUT_TV], original[HELD_OUT_TV] = (
            held_out.distance(each.outputs) for each in (model_answers, original_answers)
        )
    smallest = smallest_margins(exam.sizes, exam.metrics)
    judgement, forecast = judge_by_like(
        values, original, expectation, match, smallest=smallest, metrics=exam.metrics
    )
    whole_record = audit_record(result, judgement, [values], [], forecast, metrics=exam.metrics)
    original_judgement, _ = judge_by_like(
        original, original, expectation, match, smallest=smallest, metrics=exam.metrics, gate=False
    )
    whole_record = add_original(whole_record, original_judgement, [original], [], exam.metrics)
    facts = {
        "digest": qualification.digest,
        "stratum": match.stratum,
        "requests": len(match.like),
        "uncovered": list(match.uncovered),
        "about": asdict(about),
        "like": [asdict(each.about) for each in match.like],
        "agreement": qualification.agreement,
    }
    (stage,) = whole_record["stages"].values()
    stages = {name: {**stage, "qualified": facts} for name in whole_record["stages"]}
    return Audit(judgement, model_answers.outputs, {**whole_record, "stages": stages}, exam)

"""Audits one unlearned model: attacks, comparison with retrained references, and a verdict.

```python
audit = unweave.audit(result, reference=unweave.Retrain(train, seeds=range(10)))
print(audit)
audit.save("forgotten/")
```
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unweave.audits.answers import (
    Answers,
    calibrate_margins,
    collect_answer_pair,
    draw_sheets,
    measure_against,
    refuse_other_weights,
)
from unweave.audits.attack_runs.plan import Plan
from unweave.audits.attack_runs.verdict import judge_with_attacks
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.exam import ANSWERED
from unweave.audits.classifier.prepare_attacks import (
    attack_answers,
    attack_request,
    attacked_exam,
    examiner_of,
    plan_of_answers,
    plan_of_audit,
)
from unweave.audits.exam import Exam, Outputs
from unweave.audits.one_model import Subject, add_original, as_given, as_one_model, audit_record
from unweave.audits.references import (
    Retrain,
    load_or_retrain,
    refuse_copies,
    refuse_no_reference,
    retraining_cost,
)
from unweave.audits.score import Score
from unweave.audits.verdict import Judgement, Verdict
from unweave.record import record
from unweave.result import Result
from unweave.weights.processes import Processes

log = logging.getLogger(__name__)

__all__ = ["Audit", "Evidence", "Retrain", "Verdict", "audit"]


@dataclass(frozen=True)
class Audit:
    """A verdict and its evidence. Printed: the verdict, then the figures next to those of the references.

    Args:
        judgement: The verdict, its reason, and the scores.
        evidence: The answers of the model: logits of a classifier, images of a generator.
        record: The record, from which reports are made.
        exam: The questions to the model.
    """

    judgement: Judgement
    evidence: Any
    record: Mapping[str, Any]
    exam: Exam[Any] = ANSWERED

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE."""
        return self.judgement.verdict

    @property
    def reason(self) -> str:
        """One or two sentences that begin with the verdict."""
        return self.judgement.reason

    @property
    def scores(self) -> Mapping[str, Score]:
        """The scores, by metric."""
        return self.judgement.scores

    def __str__(self) -> str:
        from unweave.report import tables  # rich takes time to import

        return f"{self.reason}\n\n{tables.text(self.record)}"

    def save(self, folder: str | Path) -> None:
        """Writes `report.html`, `record.json` and `evidence.parquet`, or `evidence.npz` for images.

        Of several processes that share a model, the first writes, and all must call this.
        """
        Processes.current().from_first(lambda: self._write(folder))

    def _write(self, folder: str | Path) -> None:
        from unweave.report import html  # jinja2 and matplotlib take time to import

        record.write(self.record, folder)
        self.exam.save(self.evidence, Path(folder) / f"evidence.{self.exam.suffix}")
        html.write(self.record, Path(folder) / "report.html")


def audit(
    result: Result | Evidence,
    reference: Retrain | Sequence[Evidence] | None = None,
    *,
    calibration: Sequence[Evidence] = (),
    original: Evidence | None = None,
    exam: Exam[Any] | None = None,
    attacks: str | None = None,
    tier: int | None = None,
    budget: int | None = None,
) -> Audit:
    """Compares one unlearned model with models retrained without the forget set.

    The claim is about this one model: its figures against the mean of the retrained references, whose
    uncertainty comes from their seeds. A claim about a method needs one original per seed: see
    `unweave.bench.bench`.

    Retraining takes time: the logger `unweave.auditing` reports each retrained model at level INFO.

    Args:
        result: The result of `unlearn`, or the answers of any model.
        reference: How to retrain, or the answers of at least ten retrained models. Without it there is no
            verdict.
        calibration: The answers of at least twelve other retrained models, if `reference` is evidence.
        original: The answers of the model before unlearning; a `Result` knows its original.
        exam: The questions to the models of a `Result`; those of its family if None. A generator needs one:
            `unweave.families.diffusion.DiffusionFamily(attacks=25).exam(result.split)`.
        attacks: The attacks: "default", "all", or names of `unweave attacks` with commas between; None for
            none. On a classifier, an attack that finds something takes a PASS away, and controls say whether
            the audit is valid. On a generator they are figures of its exam, with 25 images of each setting
            unless the exam has another number.
        tier: The largest tier of the attacks; None for any.
        budget: The most gradient evaluations that attacks may take to examine each model, the cheapest first;
            None for any.

    Raises:
        ValueError: If models are to be retrained but the data is unknown, if the evidence is about other
            examples, if a generator comes without an exam, if the answers of a model are unusable, such as
            NaN, or if the unlearned model has other weights than the original.
        Failed: If the answers of a retrained model are unusable.
    """
    refuse_no_reference(reference)
    request = attack_request(attacks, tier, budget)
    if isinstance(result, Evidence):
        if isinstance(reference, Retrain):
            advice = "give the answers of retrained models, or audit a result"
            raise ValueError(f"expected data to retrain on, found evidence alone: {advice}")
        answers, original_answers = Answers(result), None if original is None else Answers(original)
        reference_answers, calibration_answers = as_answers(answers, reference or (), calibration)
        plan = None if request is None else plan_of_answers(request, len(reference_answers))
        return judge_answers(
            ANSWERED, result, answers, original_answers, reference_answers, calibration_answers, plan=plan
        )
    if not isinstance(result, Result):
        raise ValueError(f"expected a result of unlearn, or Evidence, found {type(result).__name__}")
    from unweave.families import default_exam  # attackers and recognisers take time to import

    exam, request = attacked_exam(exam or default_exam(result), request)
    answer_pair = collect_answer_pair(result, exam)
    refuse_other_weights(result)
    plan = None if request is None else plan_of_audit(request, reference)
    return audit_answers(result, answer_pair, reference, calibration, exam=exam, plan=plan)


def audit_answers(
    result: Result,
    answers: tuple[Answers[Any], Answers[Any]],
    reference: Retrain | Sequence[Any] | None,
    calibration: Sequence[Any] = (),
    *,
    exam: Exam[Any],
    plan: Plan | None = None,
) -> Audit:
    """Audits a result of `unlearn` from its answers and those of the original; see `audit`."""
    model_answers, original_answers = answers
    examiner = examiner_of(plan, result, exam)
    if examiner is not None:
        model_answers, original_answers = (
            replace(each, measurements=examiner(model))
            for each, model in ((model_answers, result.model), (original_answers, result.original))
        )
    if not isinstance(reference, Retrain):
        reference_answers, calibration_answers = as_answers(model_answers, reference or (), calibration)
        return judge_answers(
            exam, result, model_answers, original_answers, reference_answers, calibration_answers, plan=plan
        )
    seeds, retrained_answers = [*reference.seeds, *reference.calibration_seeds], []
    for number, seed in enumerate(seeds, start=1):
        retrained_answers.append(
            load_or_retrain(reference, result.split, seed, exam, model_answers, examiner=examiner)
        )
        log.info("retrained model %d of %d (seed %d)", number, len(seeds), seed)
    references = len(reference.seeds)
    reference_answers, calibration_answers = retrained_answers[:references], retrained_answers[references:]
    return judge_answers(
        exam, result, model_answers, original_answers, reference_answers, calibration_answers, plan=plan
    )


def as_answers(
    model_answers: Answers[Evidence], reference: Sequence[Evidence], calibration: Sequence[Evidence]
) -> tuple[list[Answers[Evidence]], list[Answers[Evidence]]]:
    """Checks the evidence of retrained models and wraps it: references, and models for calibration."""
    for each in calibration:
        each.like(model_answers.outputs)
    return [Answers(each) for each in reference], [Answers(each) for each in calibration]


def judge_answers(
    exam: Exam[Outputs],
    subject: Subject,
    model_answers: Answers[Outputs],
    original_answers: Answers[Outputs] | None,
    reference_answers: Sequence[Answers[Outputs]],
    calibration_answers: Sequence[Answers[Outputs]],
    *,
    plan: Plan | None = None,
) -> Audit:
    """Judges the answers of one model, and attacks it if there is a plan."""
    retrained_outputs = [each.outputs for each in (*reference_answers, *calibration_answers)]
    refuse_copies(exam, retrained_outputs, None if original_answers is None else original_answers.outputs)
    margins = calibrate_margins(exam, calibration_answers)
    references = [each.measure(exam) for each in reference_answers]
    drift = {} if original_answers is None else exam.drift(model_answers.outputs, original_answers.outputs)
    values = [{**each, **drift} for each in measure_against(exam, model_answers, reference_answers)]
    original = [] if original_answers is None else measure_against(exam, original_answers, reference_answers)
    answers = [] if original_answers is None else [original_answers.outputs]
    judgement = exam.judge(values, references, margins, original, lambda: answers)
    if (
        judgement.verdict is Verdict.PASS
        and not model_answers.probes
        and (caveat := exam.probe_caveat(model_answers.outputs))
    ):
        judgement = replace(judgement, reason=f"{judgement.reason}; {caveat}")
    report = None
    if plan is not None:
        report = attack_answers(
            plan, exam, margins, model_answers, original_answers, reference_answers, calibration_answers
        )
        judgement = judge_with_attacks(judgement, report)
    judgement = as_one_model(exam, judgement)
    name = as_given(subject).name
    sheets = draw_sheets(
        exam, {name: [model_answers], "original": [original_answers], "retrained": reference_answers[:1]}
    )
    audit_content = audit_record(
        subject,
        judgement,
        values,
        references,
        margins,
        metrics=exam.metrics,
        sheets=sheets,
        retraining=retraining_cost([*reference_answers, *calibration_answers]),
        attacks=None if report is None else report.as_record(),
    )
    if original:
        baseline = as_one_model(exam, exam.judge(original, references, margins, original, lambda: answers))
        audit_content = add_original(audit_content, baseline, original, references, exam.metrics)
    return Audit(judgement, model_answers.outputs, audit_content, exam)

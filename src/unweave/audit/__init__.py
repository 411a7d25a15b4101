"""How close a model came to retraining: attacks, comparison with retrained models, and a verdict.

```python
audit = unweave.audit(result, reference=unweave.Retrain(train, seeds=range(10)))
print(audit)
audit.save("forgotten/")
```
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unweave.audit import parquet
from unweave.audit.evidence import Evidence
from unweave.audit.margins import Margins, calibrate
from unweave.audit.metrics import METRICS
from unweave.audit.references import Answers, Retrain, answers_of, retrained
from unweave.audit.score import Score
from unweave.audit.verdict import Judgement, Verdict, judge
from unweave.unlearn import Result

__all__ = ["Audit", "Evidence", "Retrain", "Verdict", "audit"]


@dataclass(frozen=True)
class Audit:
    """A verdict, and all it rests on; printed, it comes first, then the figures beside the retrained models'.

    Args:
        judgement: The verdict, its reason, and the scores.
        evidence: What the model answers.
        record: The record of one stage that reports are made from.
    """

    judgement: Judgement
    evidence: Evidence
    record: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE."""
        return self.judgement.verdict

    @property
    def reason(self) -> str:
        """One plain sentence, beginning with the verdict."""
        return self.judgement.reason

    @property
    def scores(self) -> Mapping[str, Score]:
        """Every figure, by metric."""
        return self.judgement.scores

    def __str__(self) -> str:
        from unweave.report import tables

        return f"{self.reason}\n\n{tables.text(self.record)}"

    def save(self, folder: str | Path) -> None:
        """Writes `report.html`, `record.json` and `evidence.parquet`."""
        from unweave.report import html
        from unweave.run import record

        record.write(self.record, folder)
        parquet.save(self.evidence, Path(folder) / "evidence.parquet")
        html.write(self.record, Path(folder) / "report.html")


def audit(
    result: Result | Evidence,
    reference: Retrain | Sequence[Evidence] | None = None,
    *,
    calibration: Sequence[Evidence] = (),
    original: Evidence | None = None,
) -> Audit:
    """Compares one unlearned model with models retrained without the forget data.

    The claim is about this one model: its figures against the retrained models' mean, whose uncertainty comes
    from their seeds. A claim about a method needs an original per seed: see `unweave.run.bench`.

    Args:
        result: What `unlearn` returned, or what any model answers.
        reference: How to retrain, or what at least ten retrained models answer. Without it: no verdict.
        calibration: What at least twelve other retrained models answer, where `reference` is evidence.
        original: What the model answered before; known from a `Result`.

    Raises:
        ValueError: If models are to be retrained but the data is not known, or evidence is of other examples.
    """
    if isinstance(reference, Retrain):
        if not isinstance(result, Result):
            advice = "give what retrained models answer, or audit a result"
            raise ValueError(f"expected data to retrain on, found evidence alone: {advice}")
        compared = [retrained(reference, result.split, seed) for seed in reference.seeds]
        calibrating = [retrained(reference, result.split, seed) for seed in reference.calibration_seeds]
    else:
        compared = [Answers(each) for each in reference or ()]
        calibrating = [Answers(each) for each in calibration]
    if isinstance(result, Result):
        found, before = answers_of(result.model, result.split), answers_of(result.original, result.split)
    else:
        found, before = Answers(result), None if original is None else Answers(original)
    return judged(result, found, before, compared, calibrating)


def judged(
    subject: Result | Evidence,
    found: Answers,
    before: Answers | None,
    compared: Sequence[Answers],
    calibrating: Sequence[Answers],
) -> Audit:
    """The verdict on one model's answers."""
    from unweave.run.single import single_record

    refuse_copies([each.evidence for each in (*compared, *calibrating)])
    for each in calibrating:
        each.evidence.like(found.evidence)
    fixed = margins_of(calibrating)
    references = [each.measured() for each in compared]
    values = beside(found, compared)
    original = beside(before, compared) if before is not None and compared else None
    judgement = judge(values, references, fixed, original=original)
    if judgement.verdict is Verdict.PASS and found.evidence.forgotten_classes and not found.probes:
        hidden = "the logits alone can't tell a class that is lost from one that is hidden"
        judgement = replace(judgement, reason=f"{judgement.reason}; {hidden}")
    scores = {name: alone(name, each) for name, each in judgement.scores.items()}
    judgement = replace(judgement, scores=scores)
    return Audit(judgement, found.evidence, single_record(subject, judgement, values, references, fixed))


def refuse_copies(references: Sequence[Evidence]) -> None:
    """Raises if two retrained models are one: a spread of copies says nothing about retraining."""
    seen: dict[bytes, int] = {}
    for index, each in enumerate(references):
        logits = b"".join(each.logits[part].tobytes() for part in sorted(each.logits))
        first = seen.setdefault(hashlib.sha256(logits).digest(), index)
        if first != index:
            raise ValueError(
                f"retrained models must differ, found the same logits in numbers {first} and {index}: "
                "does train(dataset, seed) use its seed?"
            )


def beside(found: Answers, compared: Sequence[Answers]) -> list[dict[str, float]]:
    """The metrics of one model beside each retrained one; its own alone if there is none."""
    return [found.measured(each) for each in compared] or [found.measured()]


def alone(name: str, score: Score) -> Score:
    """The score of one model: a figure of that model alone has no interval, for want of a second model."""
    nan = float("nan")
    return score if METRICS[name].needs_reference else replace(score, n=1, low=nan, high=nan)


def margins_of(calibrating: Sequence[Answers]) -> Margins | None:
    """The margins, if there are two models to compare."""
    if len(calibrating) < 2:
        return None
    return calibrate([each.evidence for each in calibrating], probes=[each.probes for each in calibrating])

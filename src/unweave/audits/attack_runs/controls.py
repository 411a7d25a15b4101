"""Controls: models whose verdict is known. An audit that judges one of them wrongly is invalid.

Genuine retrains must pass: each reference in turn, beside all others. The original must fail something, and
so must a model with one answer to everything and one with random answers. What they may fail is any metric
that a verdict tests and any attack that ran.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from unweave.audits.answers import Answers
from unweave.audits.attack import Attack, Figures, ModelAnswers
from unweave.audits.attack_runs.compare import AuditedModels, Null, figures_of, findings
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.equivalence import equivalences
from unweave.audits.exam import Measuring

Faults = Callable[[Evidence, Sequence[Evidence]], list[str]]
"""The metrics by which a verdict tells a model from references."""
Nulls = Sequence[tuple[Attack, Null]]

PASSING = 0.8
"""The share of genuine retrains that must pass: if each passed with 95 %, 99 % of audits would have it."""


@dataclass(frozen=True)
class Control:
    """A model whose verdict is known.

    Args:
        name: The model, as in a sentence.
        expected: The verdict that is right.
        is_right: Whether the audit judged it rightly.
        faults: The metrics and attacks that tell it from retrained models; for several models, those of any.
    """

    name: str
    expected: Literal["passes", "fails"]
    is_right: bool
    faults: tuple[str, ...]

    @property
    def says(self) -> str:
        """What tells the control from retrained models, as a clause."""
        if not self.faults:
            return f"nothing tells {self.name} from retrained models"
        verb = "are" if self.name[0].isdigit() else "is"
        return f"{self.name} {verb} told from other retrained models by {', '.join(self.faults[:3])}"


def run_controls(models: AuditedModels, nulls: Nulls, faults: Faults) -> list[Control]:
    """The controls of an audit; none without the models that a verdict needs.

    Args:
        models: The models of the audit.
        nulls: The attacks that ran, each with the figures of retrained models.
        faults: The metrics that tell a model from references.
    """
    if models.tier < 2:
        return []
    answers, original = models.unlearned.outputs, models.original
    broken_models = {
        "a constant model": Answers(constant_answers(answers)),
        "a random model": Answers(random_answers(answers)),
    }
    if original is not None:
        broken_models = {"the original": original, **broken_models}
    faults_by_model = {}
    for name, model in broken_models.items():
        figures = [figures_of(attack, model, models.retrained) for attack, _ in nulls]
        faults_by_model[name] = faults_of(model, models, figures, nulls, faults)
    broken_controls = [Control(name, "fails", bool(each), each) for name, each in faults_by_model.items()]
    return [retrain_control(models, nulls, faults), *broken_controls]


def retrain_control(models: AuditedModels, nulls: Nulls, faults: Faults) -> Control:
    """The control of genuine retrains, which must pass."""
    by_retrain = []
    for index in range(len(models.retrained)):
        case = models.without(index)
        figures = [null.references[index] for _, null in nulls]
        case_nulls = [(attack, drop_reference(null, index)) for attack, null in nulls]
        by_retrain.append(faults_of(case.unlearned, case, figures, case_nulls, faults))
    failures, count = sum(bool(each) for each in by_retrain), len(by_retrain)
    counts = Counter(fault for each in by_retrain for fault in each)
    return Control(
        f"{failures} of {count} genuine retrains" if failures else "a genuine retrain",
        "passes",
        count - failures >= PASSING * count,
        tuple(name for name, _ in counts.most_common()),
    )


def faults_of(
    model: ModelAnswers, models: AuditedModels, figures: Sequence[Figures], nulls: Nulls, faults: Faults
) -> tuple[str, ...]:
    """The names of the metrics and attacks that tell a model from the references; `figures` are by attack."""
    by_attack = [
        f"{attack.name} ({name})"
        for (attack, null), model_figures in zip(nulls, figures, strict=True)
        for name in findings(attack, model_figures, null)
    ]
    return (*faults(model.outputs, [each.outputs for each in models.retrained]), *by_attack)


def drop_reference(null: Null, index: int) -> Null:
    """The figures of all references but one."""
    return replace(null, references=[each for i, each in enumerate(null.references) if i != index])


def constant_answers(answers: Evidence) -> Evidence:
    """The answers of a model that gives every class the same probability."""
    return replace(answers, logits={part: np.zeros_like(each) for part, each in answers.logits.items()})


def random_answers(answers: Evidence) -> Evidence:
    """Answers that have nothing to do with the examples, as far apart as those of the model."""
    rng, scale = np.random.default_rng(0), float(answers.logits["forget"].std()) or 1.0
    logits = {
        part: rng.normal(scale=scale, size=each.shape).astype(each.dtype)
        for part, each in sorted(answers.logits.items())
    }
    return replace(answers, logits=logits)


@dataclass(frozen=True)
class MetricFaults:
    """Tests answers as a verdict does, without its probes.

    Args:
        exam: The metrics.
        margins: The margin of each metric; empty without calibration retrains, and nothing is then found.
        measured: Answers that were measured before and their metrics, by identity.
    """

    exam: Measuring[Any]
    margins: Mapping[str, float]
    measured: dict[int, tuple[Evidence, dict[str, float]]] = field(default_factory=dict)

    def __call__(self, answers: Evidence, references: Sequence[Evidence]) -> list[str]:
        """The titles of the metrics that differ."""
        if not self.margins:
            return []
        own_values = self.alone(answers)
        values = [{**own_values, **self.exam.measure_pair(answers, each)} for each in references]
        tests = equivalences(
            values, [self.alone(each) for each in references], self.margins, metrics=self.exam.metrics
        )
        return [self.exam.metrics[name].title for name, test in tests.items() if test.finding]

    def alone(self, answers: Evidence) -> dict[str, float]:
        """The metrics of one model, measured once."""
        if id(answers) not in self.measured:
            self.measured[id(answers)] = answers, self.exam.measure(answers)
        return self.measured[id(answers)][1]

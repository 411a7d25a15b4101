"""Attacks on models that were measured before, as `unweave audit --attacks` runs them on one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unweave.audits.answers import Answers
from unweave.audits.attack import ModelAnswers
from unweave.audits.attack_runs.compare import AuditedModels
from unweave.audits.attack_runs.controls import MetricFaults
from unweave.audits.attack_runs.plan import Plan, Request, plan_attacks
from unweave.audits.attack_runs.report import AttackReport, run_attacks
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.metrics import METRICS
from unweave.audits.classifier.prepare_attacks import examine_with
from unweave.audits.exam import Exam
from unweave.audits.margins import Margins
from unweave.audits.metrics import Values
from unweave.audits.verdict import SEEDS

Name = tuple[str, int]
"""The kind of a model and its number, such as ("retrained", 3)."""


@dataclass(frozen=True)
class Draw:
    """The models of one audit, by their numbers.

    Args:
        calibration: The retrained models that fix the margins.
        references: Those to compare with.
        judged: The models to judge, by kind.
        margins: The margins.
    """

    calibration: Sequence[int]
    references: Sequence[int]
    judged: Mapping[str, Sequence[int]]
    margins: Margins


@dataclass(frozen=True)
class Attacker:
    """The models of a stage as attacks see them; each is examined once beside an original.

    Args:
        exam: The questions to the models.
        names: The attacks: "default", "all", or names with commas between.
        models: The models, by kind.
        answers: Their answers.
        alone: The metrics of each model.
        examined: What attacks kept of a model, by the number of the original and the model.
    """

    exam: Exam[Any]
    names: str
    models: Mapping[str, Sequence[nn.Module]]
    answers: Mapping[str, Sequence[Evidence]]
    alone: Mapping[str, Sequence[Values]]
    examined: dict[tuple[int, Name], ModelAnswers] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The attacks that run."""
        return plan_attacks(Request(self.names), retrained=SEEDS, has_models=True)

    def attack(self, kind: str, drawn: Draw) -> AttackReport:
        """Attacks the first judged model of a kind, with controls."""
        original = drawn.judged["original"][0]
        retrained, calibration = (
            [self.answers_of(("retrained", number), original) for number in numbers]
            for numbers in (drawn.references, drawn.calibration)
        )
        audited = self.answers_of((kind, drawn.judged[kind][0]), original)
        before = self.answers_of(("original", original), original)
        models = AuditedModels(audited, retrained, calibration, before)
        return run_attacks(self.plan, models, MetricFaults(self.exam, drawn.margins.margin, self.metrics()))

    def answers_of(self, name: Name, original: int) -> ModelAnswers:
        """A model's answers, and what attacks keep of it beside an original."""
        key = original, name
        if key not in self.examined:
            kind, number = name
            examine = examine_with(self.plan.model_attacks, self.exam, self.models["original"][original])
            kept = examine(self.models[kind][number])
            self.examined[key] = Answers(self.answers[kind][number], measurements=kept)
        return self.examined[key]

    def metrics(self) -> dict[int, tuple[Evidence, dict[str, float]]]:
        """The metrics of all answers, without probes, which a control has not."""
        return {
            id(found): (found, {name: v for name, v in values.items() if not METRICS[name].needs_model})
            for kind, group in self.answers.items()
            for found, values in zip(group, self.alone[kind], strict=True)
        }

"""Attacks on models that were measured before, as `unweave audit --attacks` runs them on one model."""

from dataclasses import dataclass, field

from power_audits import Draw
from power_models import Models

from unweave.audits.answers import Answers
from unweave.audits.attack import ModelAnswers
from unweave.audits.attack_runs.compare import AuditedModels
from unweave.audits.attack_runs.controls import MetricFaults
from unweave.audits.attack_runs.plan import Plan, Request, plan_attacks
from unweave.audits.attack_runs.report import AttackReport
from unweave.audits.attack_runs.run import run_attacks
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.metrics import METRICS
from unweave.audits.classifier.prepare_attacks import examine_with
from unweave.audits.verdict import SEEDS

Name = tuple[str, int]
"""The kind of a model and its number, such as ("retrained", 3)."""


@dataclass(frozen=True)
class Attacker:
    """The models of a stage as attacks see them; each is examined once beside an original.

    Args:
        found: The models.
        names: The attacks: "default", "all", or names with commas between.
        examined: What attacks kept of a model, by the number of the original and the model.
    """

    found: Models
    names: str
    examined: dict[tuple[int, Name], ModelAnswers] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The attacks that run."""
        return plan_attacks(Request(self.names), retrained=SEEDS, has_models=True)

    def attack(self, kind: str, audit_draw: Draw) -> AttackReport:
        """Attacks the first judged model of a kind, with controls."""
        original = audit_draw.judged["original"][0]
        retrained, calibration = (
            [self.answers_of(("retrained", number), original) for number in numbers]
            for numbers in (audit_draw.references, audit_draw.calibration)
        )
        audited_model = self.answers_of((kind, audit_draw.judged[kind][0]), original)
        before = self.answers_of(("original", original), original)
        models = AuditedModels(audited_model, retrained, calibration, before)
        faults = MetricFaults(self.found.exam, audit_draw.margins.margin, self.metrics())
        return run_attacks(self.plan, models, faults)

    def answers_of(self, name: Name, original: int) -> ModelAnswers:
        """A model's answers, and what attacks keep of it beside an original."""
        key = original, name
        if key not in self.examined:
            (kind, number), models = name, self.found
            examine = examine_with(self.plan.model_attacks, models.exam, models.models["original"][original])
            measurements = examine(models.models[kind][number])
            self.examined[key] = Answers(models.answers[kind][number], measurements=measurements)
        return self.examined[key]

    def metrics(self) -> dict[int, tuple[Evidence, dict[str, float]]]:
        """The metrics of all answers, without probes, which a control has not."""
        return {
            id(answers): (answers, {name: v for name, v in values.items() if not METRICS[name].needs_model})
            for kind, group in self.found.answers.items()
            for answers, values in zip(group, self.found.alone[kind], strict=True)
        }

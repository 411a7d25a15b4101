"""What the attacks of an audit found: their results, those that did not run, whether the audit is valid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unweave.audits.attack import Attack, ModelAnswers
from unweave.audits.attack_result import AttackResult
from unweave.audits.attack_runs.compare import AuditedModels
from unweave.audits.attack_runs.controls import Control
from unweave.audits.attack_runs.plan import Plan
from unweave.audits.attack_runs.power import power_sentence

CLAIMS: Mapping[int, str] = {
    0: "T0, the two models alone: what an attack shows may be true of a retrained model as well; no finding "
    "and no PASS can be claimed.",
    1: "T1, fewer retrained models than a verdict needs: figures stand beside theirs without a margin; no "
    "finding and no PASS can be claimed.",
    2: "T2, {references} retrained models and {calibration} calibration retrains: a figure outside its "
    "margin tells this model from retrained ones. Attacks that find nothing speak for themselves alone, on "
    "average over records; what an attack on each record finds takes shadow models (T3).",
}


@dataclass(frozen=True)
class AttackReport:
    """The attacks of an audit.

    Args:
        plan: The attacks that ran, and why the others did not.
        models: The models.
        results: By attack and figure.
        seconds: What each attack took on the answers of all models.
        controls: Models whose verdict is known; empty without the models that a verdict needs.
        notes: What an attack says about its own figures, by attack.
    """

    plan: Plan
    models: AuditedModels
    results: Mapping[str, Mapping[str, AttackResult]]
    seconds: Mapping[str, float]
    controls: Sequence[Control] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def valid(self) -> bool | None:
        """Whether every control was judged rightly; None if none ran."""
        return all(each.is_right for each in self.controls) if self.controls else None

    @property
    def claim(self) -> str:
        """What can be claimed from these models, in a sentence."""
        models = self.models
        return CLAIMS[models.tier].format(
            references=len(models.retrained), calibration=len(models.calibration)
        )

    @property
    def power(self) -> str:
        """The smallest shift that the attacks would show, in a sentence."""
        unseen = int(self.models.unlearned.outputs.unseen.sum())
        return power_sentence(self.results, self.models.records, unseen)

    @property
    def spent(self) -> str:
        """What examining the models took, in a sentence; empty if no attack did."""
        gradients = {attack.name: attack.gradients for attack in self.plan.model_attacks if attack.gradients}
        if not gradients:
            return ""
        models = self.models.count
        total = models * sum(gradients.values())
        counts = ", ".join(f"{name} {number}" for name, number in gradients.items())
        return (
            f"Examining {models} models took about {total:,} gradient evaluations; of each model: {counts}."
        )

    @property
    def unjudged(self) -> dict[str, str]:
        """Why a figure was shown and not judged, by attack and figure; such a figure is inconclusive."""
        return {
            f"{attack} ({figure})": result.unjudged
            for attack, figures in self.results.items()
            for figure, result in figures.items()
            if result.unjudged
        }

    @property
    def judging(self) -> list[str]:
        """The attacks with a figure that was judged."""
        return [
            attack.name
            for attack in self.plan.attacks
            if any(each.margin is not None for each in self.results.get(attack.name, {}).values())
        ]

    @property
    def faults(self) -> list[str]:
        """A clause per attack with a finding, on its clearest figure; the clearest first."""
        clearest = {
            name: max(findings, key=lambda each: distance_in_margins(each[1]))
            for name, figures in self.results.items()
            if (findings := [item for item in figures.items() if item[1].finding is not None])
        }
        ranking = sorted(clearest.items(), key=lambda item: -distance_in_margins(item[1][1]))
        return [describe_finding(name, *figure) for name, figure in ranking]

    @property
    def pictures(self) -> list[dict[str, Any]]:
        """What attacks show of some records."""
        return [
            {"attack": attack.name, "title": each.title, "images": dict(each.images)}
            for attack in self.plan.attacks
            if attack.draw is not None
            for each in attack.draw(self.models.unlearned)
        ]

    @property
    def curves(self) -> list[dict[str, Any]]:
        """The curve behind each figure of an attack that has one: of the model, the original and retrains."""
        rows = []
        for attack in self.plan.attacks:
            original_curves = curves_of(attack, self.models.original)
            retrained_curves = [curves_of(attack, each) for each in self.models.retrained]
            rows += [
                {
                    "attack": attack.name,
                    "figure": name,
                    "model": curve,
                    "original": original_curves.get(name),
                    "retrained": [each[name] for each in retrained_curves if name in each],
                }
                for name, curve in curves_of(attack, self.models.unlearned).items()
            ]
        return rows

    def as_record(self) -> dict[str, Any]:
        """The attacks as a stage of a record holds them."""
        request = self.plan.request
        return {
            "asked": request.names,
            "tier": self.models.tier,
            "largest_tier": request.tier,
            "budget": request.budget,
            "claim": self.claim,
            "power": self.power,
            "spent": self.spent,
            "valid": self.valid,
            "controls": [control_row(each) for each in self.controls],
            "results": [
                result_row(attack, name, result, self.seconds[attack.name])
                for attack in self.plan.attacks
                for name, result in self.results.get(attack.name, {}).items()
            ],
            "not_run": dict(self.plan.not_run),
            "unjudged": self.unjudged,
            "notes": dict(self.notes),
            "pictures": self.pictures,
            "curves": self.curves,
        }


def curves_of(attack: Attack, model: ModelAnswers | None) -> dict[str, list[float]]:
    """The curves of one model by figure; none if the attack has none or did not examine the model."""
    if attack.curves is None or model is None or attack.name not in model.measurements:
        return {}
    return {name: list(curve) for name, curve in attack.curves(model).items()}


def distance_in_margins(result: AttackResult) -> float:
    """The distance from retrained models, in margins."""
    if result.retrained is None or not result.margin:
        return 0.0
    return abs(result.value - result.retrained) / result.margin


def describe_finding(attack: str, figure: str, result: AttackResult) -> str:
    """A clause on what an attack found."""
    reference = f"{result.retrained:.3f} of the retrained models (margin {result.margin:.3f})"
    return f"{result.finding}: the attack {attack} finds {figure} {result.value:.3f} against {reference}"


def control_row(control: Control) -> dict[str, Any]:
    """One control as a record holds it."""
    return {
        "name": control.name,
        "expected": control.expected,
        "held": control.is_right,
        "faults": list(control.faults),
    }


def result_row(attack: Attack, figure: str, result: AttackResult, seconds: float) -> dict[str, Any]:
    """One line of the table of attacks."""
    band = result.null_band
    return {
        "attack": attack.name,
        "figure": figure,
        "tier": attack.tier,
        "value": result.value,
        "low": result.low,
        "high": result.high,
        "original": result.original,
        "retrained": result.retrained,
        "null_band": None if band is None else list(band),
        "margin": result.margin,
        "shows_from": result.shows_from,
        "finding": result.finding,
        "seconds": seconds,
        "cost": attack.cost,
        "cannot": attack.cannot,
    }

"""Compares the figures of an attack with those of retrained models: null band, margin and finding.

The margin of a figure is that of the metrics of a verdict (`unweave.audits.margins`): 1.5 x the 95 % quantile
of the difference between two calibration retrains, at least the attack's floor and one forget example. A
figure is found to differ if the 90 % t interval of its difference from the references lies outside the
margin. An attack that finds nothing proves nothing, so there is no test of equality here.

A rate of rare events is judged from `EVENTS` of them on: with fewer, single records move it beyond any
margin, and genuine retrained models would be found. With too few examples it is shown and not judged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unweave.audits.attack import Attack, Figures, ModelAnswers
from unweave.audits.attack_result import AttackResult, spread_band
from unweave.audits.margins import RETRAINS, WIDENING, spread
from unweave.audits.score import t_interval
from unweave.audits.verdict import SEEDS

WIDEST = 0.95
"""The widest margin; all figures of attacks lie in a range of 1."""

ROUNDING = 1e-9
"""A difference of whole examples that equals its margin may exceed it by rounding."""

MOSTLY = 0.842
"""The standard normal quantile of 80 %."""

ALONE = "has no figure of a retrained model"
"""Why a figure that the unlearned model alone has is not judged."""


@dataclass(frozen=True)
class AuditedModels:
    """The models of an audit, as attacks see them.

    Args:
        unlearned: The model to attack.
        retrained: The references, retrained without the forget set.
        calibration: Further retrained models, which only fix the margins.
        original: The model before unlearning; None if it is unknown.
    """

    unlearned: ModelAnswers
    retrained: Sequence[ModelAnswers] = ()
    calibration: Sequence[ModelAnswers] = ()
    original: ModelAnswers | None = None

    @property
    def tier(self) -> int:
        """The tier of what can be claimed from these models."""
        if len(self.retrained) >= SEEDS and len(self.calibration) >= RETRAINS:
            return 2
        return 1 if self.retrained else 0

    @property
    def records(self) -> int:
        """The number of forget examples."""
        return len(self.unlearned.outputs.labels["forget"])

    @property
    def count(self) -> int:
        """The number of all models."""
        return 1 + len(self.retrained) + len(self.calibration) + (self.original is not None)

    def without(self, position: int) -> "AuditedModels":
        """One reference as the model to attack, with all other references."""
        references = [each for index, each in enumerate(self.retrained) if index != position]
        return AuditedModels(self.retrained[position], references, self.calibration)


@dataclass(frozen=True)
class Null:
    """The figures of retrained models by one attack, with which any model is compared.

    Args:
        references: The figures of each reference, compared with all others.
        margins: The margin of each figure; empty without enough calibration retrains.
        bands: The null band of each figure; empty with fewer than two retrained models.
        unjudged: Why a figure has no margin although there are enough models, by figure.
    """

    references: Sequence[Figures]
    margins: Mapping[str, float]
    bands: Mapping[str, tuple[float, float]]
    unjudged: Mapping[str, str] = field(default_factory=dict)


def findings(attack: Attack, figures: Figures, null: Null) -> list[str]:
    """The names of the figures by which the attack tells a model from the references."""
    results = judge_figures(attack, figures, null)
    return [name for name, result in results.items() if result.finding is not None]


def figures_of(attack: Attack, model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The figures of one model; none if the attack did not examine it."""
    if attack.figures is None:
        raise ValueError(f"an audit of one model can't run the attack {attack.name}: call {attack.function}")
    if not all(each.outputs.finite for each in (model, *retrained)):
        raise ValueError(f"{attack.name} needs finite logits, found NaN or infinity: leave out what failed")
    if attack.examine is not None and attack.name not in model.measurements:
        return {}
    return attack.figures(model, retrained)


def null_of(attack: Attack, models: AuditedModels) -> Null:
    """The figures of the retrained models."""
    references = [
        figures_of(attack, each, models.without(index).retrained)
        for index, each in enumerate(models.retrained)
    ]
    calibration = [figures_of(attack, each, models.retrained) for each in models.calibration]
    spread_by = calibration if len(calibration) >= 2 else references
    values = {
        name: [each[name].value for each in spread_by] for name in common_names([*references, *calibration])
    }
    unseen = int(models.unlearned.outputs.unseen.sum())
    reasons = {
        name: f"needs at least {fewest} unseen examples, found {unseen}"
        for name, fewest in attack.fewest_unseen.items()
        if unseen < fewest and models.tier >= 2
    }
    return Null(
        references,
        margins={
            name: min(WIDEST, max(smallest_margin(attack, name, models.records), WIDENING * spread(each)))
            for name, each in values.items()
            if models.tier >= 2 and name not in reasons
        },
        bands={name: spread_band(each) for name, each in values.items() if len(each) >= 2},
        unjudged=reasons,
    )


def smallest_margin(attack: Attack, figure: str, records: int) -> float:
    """The attack's floor, or the forget examples by which a figure must differ if they are a larger share."""
    return max(attack.floor, attack.fewest_forget.get(figure, 1) / (attack.share_of_forget * records))


def own_spread(values: Sequence[float]) -> float:
    """How far beyond margin and interval a shift must be, so that it is found in four of five audits.

    For given margins and normal figures: the audited model varies as the references do, and so does their
    mean, less.
    """
    return MOSTLY * float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / len(values))


def common_names(rows: Sequence[Figures]) -> list[str]:
    """The names of the figures that all models have."""
    return [name for name in (rows[0] if rows else ()) if all(name in each for each in rows)]


def judge_figures(
    attack: Attack, figures: Figures, null: Null, originals: Mapping[str, float] | None = None
) -> dict[str, AttackResult]:
    """Compares the figures of a model with those of retrained models."""
    results = {}
    for name, each in figures.items():
        values = [other[name].value for other in null.references if name in other]
        margin = null.margins.get(name)
        low, high = t_interval([each.value - other for other in values], level=0.9)
        shows_from = finding = None
        if margin is not None:
            shows_from = margin + (high - low) / 2 + own_spread(values)
            finding = attack.above if low > margin + ROUNDING else None
            finding = attack.below if high < -margin - ROUNDING else finding
        results[name] = AttackResult(
            each.value,
            each.low,
            each.high,
            float(np.mean(values)) if values else None,
            null.bands.get(name),
            attack.cannot,
            (originals or {}).get(name),
            margin=margin,
            shows_from=shows_from,
            finding=finding,
            unjudged=null.unjudged.get(name, "" if values or not null.references else ALONE),
        )
    return results

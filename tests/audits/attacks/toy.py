"""Models that are known by their answers: one base of logits, and noise of each model's own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from audits.answers import draw_evidence
from unweave.audits.answers import Answers
from unweave.audits.attack import Attack, Figures, ModelAnswers
from unweave.audits.attack_runs.compare import AuditedModels
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.score import Interval

SIZES = {"forget": 120, "retain": 160, "calibration": 120, "test": 120}


def answers(seed: int, lift: float = 0.0, noise: float = 0.3) -> Evidence:
    """A retrained model's answers; `lift` is what the model still knows of F, in nats."""
    base, noise_rng = draw_evidence(0, SIZES), np.random.default_rng([seed, 7])
    logits = {
        part: each + noise_rng.normal(scale=noise, size=each.shape).astype(np.float32)
        for part, each in base.logits.items()
    }
    logits["forget"][np.arange(SIZES["forget"]), base.labels["forget"]] += lift
    return replace(base, logits=logits)


REFERENCES = [answers(seed) for seed in range(10)]
CALIBRATION = [answers(seed) for seed in range(100, 112)]
ORIGINAL = answers(51, lift=3.0)


def case(
    model: Evidence, references: Sequence[Evidence] = REFERENCES, calibration=CALIBRATION
) -> AuditedModels:
    """An audit of a model."""
    return AuditedModels(
        Answers(model), [*map(Answers, references)], [*map(Answers, calibration)], Answers(ORIGINAL)
    )


def mean_of_forget(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """A figure whose value is easily known: a hundredth of the mean of the first logit on F."""
    value = float(model.outputs.logits["forget"][:, 0].mean()) / 100
    return {"mean": Interval(value, float("nan"), float("nan"))}


PLAIN = Attack(
    name="plain",
    paper="arXiv 0000.00000",
    evidence="logits of the model",
    tier=0,
    fewest=1,
    says="A mean.",
    cannot="Anything else.",
    figures=mean_of_forget,
    floor=0.001,
    default=True,
)
"""An attack of tests."""

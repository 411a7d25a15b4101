"""Offline RMIA (Zarifzadeh et al., 2024), https://arxiv.org/abs/2312.03262: membership from few references.

How much more does the model believe in x than models that never saw it, compared with the same for records z
that nobody saw?

    LR(x, z) = (p(x | theta) / p(x)) / (p(z | theta) / p(z)),    score(x) = share of z with LR(x, z) >= gamma,

where p(. | theta) is the probability of the true class. Offline, references give the prior of a record that
they did not train on, and `a` corrects it for those that would have:

    p(x) = ((1 + a) p_out(x) + (1 - a)) / 2.

To audit unlearning, retrained models are the references. Each in turn is left out, and is then a target
itself: its score is what a perfect deletion gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from unweave.audits.attack import EVENTS, Attack, Figures, ModelAnswers
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import confidence
from unweave.audits.rates import delong, tpr_at_fpr
from unweave.audits.score import Interval

RATE, FPR = "tpr at 10 % fpr", 0.1
GAMMA = 1.0
A = 0.3
CANNOT = (
    "What an attacker with the original model or with models trained on the forget set would find; the score "
    "of a record depends on a, gamma and on z with the right mix of classes."
)

PerExample = Float64[np.ndarray, " _"]


@dataclass(frozen=True)
class Confidences:
    """The probability of the true class by one model, in [0, 1].

    Args:
        forget: Of the forget examples.
        unseen: Of held-out examples to tell them from.
        population: Of other held-out examples, the z of the score.
    """

    forget: PerExample
    unseen: PerExample
    population: PerExample

    @property
    def parts(self) -> dict[str, PerExample]:
        """All three by name."""
        return {"forget": self.forget, "unseen": self.unseen, "population": self.population}

    @classmethod
    def of(cls, evidence: Evidence) -> "Confidences":
        """Those of a model's evidence: every second calibration example is a z."""
        rows = evidence.unseen
        held_out = confidence(evidence.logits["calibration"][rows], evidence.labels["calibration"][rows])
        forget = confidence(evidence.logits["forget"], evidence.labels["forget"])
        return cls(forget, held_out[::2], held_out[1::2])


def scores(
    target: Confidences, references: Sequence[Confidences], part: str, *, a: float, gamma: float
) -> PerExample:
    """The score of each example of a part, in [0, 1]."""
    x, z = (ratios(target, references, name, a) for name in (part, "population"))
    return np.searchsorted(np.sort(z), x / gamma, side="right") / len(z)


def ratios(target: Confidences, references: Sequence[Confidences], part: str, a: float) -> PerExample:
    """p(x | theta) / p(x) of each example of a part."""
    p_out = np.mean([each.parts[part] for each in references], axis=0)
    return target.parts[part] / (((1 + a) * p_out + (1 - a)) / 2)


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The AUC, and the true-positive rate that the examples allow.

    None without references, or if the forget set or the unseen examples are a single one.
    """
    if not retrained:
        return {}
    target, references = Confidences.of(model.outputs), [Confidences.of(each.outputs) for each in retrained]
    members, non_members = (
        scores(target, references, part, a=A, gamma=GAMMA) for part in ("forget", "unseen")
    )
    if min(len(members), len(non_members)) < 2:
        return {}
    figures = {"auc": Interval(*delong(members, non_members))}
    if len(non_members) >= 10:
        rate = tpr_at_fpr(members, non_members, FPR)[1]
        figures[RATE] = Interval(rate.value, rate.low, rate.high)
    return figures


ATTACK = Attack(
    name="rmia",
    paper="Zarifzadeh et al., ICML 2024, arXiv 2312.03262",
    evidence="confidences of the model and of retrained ones",
    tier=1,
    says="How much more the model believes in a forget example than references do, relative to others.",
    cannot=CANNOT,
    figures=attack_figures,
    fewest_unseen={RATE: 2 * round(EVENTS / FPR)},  # every second unseen example is a z
    default=True,
)

"""Streisand tests (Golatkar et al., 2020), https://arxiv.org/abs/1911.04933: does F stand out as forgotten?

A model that errs on F more than a model that never saw it gives F away as well. The tail is the share of F
whose loss exceeds the 99 % quantile of the losses of retrained models on F: one in a hundred is expected. The
Kolmogorov-Smirnov distance is that of the entropies on F from those on unseen examples; it needs no label.
"""

import math
from collections.abc import Sequence

import numpy as np

from unweave.audits.attack import EVENTS, Attack, Figures, ModelAnswers
from unweave.audits.attacks.forget_vs_unseen import entropy
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import loss
from unweave.audits.intervals import share_interval
from unweave.audits.score import Interval

QUANTILE = 0.99


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The distance of the entropies, and with references the tail."""
    figures = {"ks of entropy": distance_interval(model.outputs)}
    if retrained:
        losses = np.concatenate([forget_losses(each.outputs) for each in retrained])
        is_above = forget_losses(model.outputs) > np.quantile(losses, QUANTILE)
        figures["tail"] = share_interval(is_above.astype(float).tolist())
    return figures


def distance_interval(answers: Evidence) -> Interval:
    """The distance of the entropies, with a 95 % interval that is never too narrow (DKW; Massart, 1990)."""
    distance = entropy_distance(answers)
    reach = sum(
        math.sqrt(math.log(4 / 0.05) / (2 * n)) for n in (len(answers.labels["forget"]), answers.unseen.sum())
    )
    return Interval(distance, max(0.0, distance - reach), min(1.0, distance + reach))


def entropy_distance(answers: Evidence) -> float:
    """The largest difference of the distribution functions of the entropy on F and on unseen examples."""
    unseen = answers.unseen
    forget_entropy = entropy(answers.logits["forget"], answers.labels["forget"])
    unseen_entropy = entropy(answers.logits["calibration"][unseen], answers.labels["calibration"][unseen])
    places = np.concatenate([forget_entropy, unseen_entropy])
    distributions = [
        np.searchsorted(np.sort(each), places, side="right") / len(each)
        for each in (forget_entropy, unseen_entropy)
    ]
    return float(np.abs(distributions[0] - distributions[1]).max())


def forget_losses(answers: Evidence) -> np.ndarray:
    """The losses on F, in nats."""
    return loss(answers.logits["forget"], answers.labels["forget"])


ATTACK = Attack(
    name="streisand",
    paper="Golatkar et al., 2020, arXiv 1911.04933",
    evidence="logits of the model and, for the tail, of retrained ones",
    tier=0,
    says="How many forget examples have a loss that retrained models hardly give, and how far F stands out.",
    cannot="Much on a small forget set: one in a hundred of a few hundred examples is a handful.",
    figures=attack_figures,
    above="F stands out",
    below=None,
    fewest_forget={"tail": EVENTS},
    default=True,
)

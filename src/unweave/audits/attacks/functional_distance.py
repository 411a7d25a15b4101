"""Functional distance: how far the answers on F are from those of retrained models, example by example.

The Jensen-Shannon divergence is the mean over examples of its sum over classes, in bits; the activation
distance is the mean of |p - q|, divided by its largest value, the square root of 2; the disagreement is the
share of examples on which two models name another class. Each is a mean over the references. Two honest
retrained models disagree as well, and only beyond their distance does a figure say anything.

Released code (SSD, and those who copied it) takes KL(m || p) for KL(p || m) and divides by the number of
classes: its figures are not bounded by one bit.
"""

from collections.abc import Sequence

import numpy as np

from unweave.audits.attack import Attack, Figures, ModelAnswers
from unweave.audits.classifier.distance import jensen_shannon
from unweave.audits.classifier.logits import probabilities
from unweave.audits.intervals import mean_interval


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The three distances; none without references."""
    if not retrained:
        return {}
    p = probabilities(model.outputs.logits["forget"])
    references = [probabilities(each.outputs.logits["forget"]) for each in retrained]
    per_example = {
        "js in bits": [jensen_shannon(p, each) for each in references],
        "activation distance": [np.linalg.norm(p - each, axis=1) / np.sqrt(2) for each in references],
        "disagreement": [p.argmax(axis=1) != each.argmax(axis=1) for each in references],
    }
    return {name: mean_interval(np.mean(values, axis=0)) for name, values in per_example.items()}


ATTACK = Attack(
    name="functional-distance",
    paper="Golatkar et al., 2020, arXiv 1911.04933; Chundawat et al., 2023, arXiv 2205.08096",
    evidence="logits of the model and of retrained ones on the forget set",
    tier=1,
    says="How far the answers on the forget set are from those of retrained models.",
    cannot="Which examples differ, and residue that no answer shows; it depends on calibration.",
    figures=attack_figures,
    above="other answers than retraining",
    below=None,
    floor=0.01,
    default=True,
)

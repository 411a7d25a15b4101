"""Membership by a threshold that is fitted elsewhere: on the retain set against unseen examples.

The attacker knows members (retain examples) and strangers (calibration examples), takes the threshold of a
statistic that tells these apart with the largest balanced accuracy, and applies it to the forget set, as Song
and Mittal (2021), https://arxiv.org/abs/2003.10595, do with shadow models. The figure is the share of F that
it calls members. The MIA of a verdict is this attack with a support vector classifier on the confidence;
released code fits it to the first retain examples, and here all count.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from unweave.audits.attack import Attack, Figures, ModelAnswers
from unweave.audits.attacks.forget_vs_unseen import STATISTICS
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import level
from unweave.audits.intervals import share_interval

Scores = Float64[np.ndarray, "_"]


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The share of F that each statistic's threshold calls members, with its exact interval.

    None if all calibration examples are of classes forgotten whole.
    """
    if not len(model.outputs.without_forgotten_classes("calibration")[1]):
        return {}
    return {f"members by {name}": share_interval(called_members(model.outputs, name)) for name in STATISTICS}


def called_members(evidence: Evidence, statistic: str) -> list[float]:
    """For each forget example whether it is called a member."""
    parts = [evidence.without_forgotten_classes(part) for part in ("retain", "calibration")]
    parts.append((evidence.logits["forget"], evidence.labels["forget"]))
    members, non_members, forget = (level(STATISTICS[statistic](*part)) for part in parts)
    return (forget > best_threshold(members, non_members)).astype(float).tolist()


def best_threshold(members: Scores, non_members: Scores) -> float:
    """The level above which an example is called a member, with the largest balanced accuracy."""
    levels = np.unique(np.concatenate([members, non_members]))
    fnr, tnr = (
        np.searchsorted(np.sort(each), levels, side="right") / len(each) for each in (members, non_members)
    )
    return float(levels[np.argmax(tnr - fnr)])


ATTACK = Attack(
    name="transfer",
    paper="Song & Mittal, 2021, arXiv 2003.10595; Jia et al., 2023, arXiv 2304.04934",
    evidence="logits of the model",
    tier=0,
    says="How much of F a threshold between the retain set and unseen examples calls members.",
    cannot=(
        "Anything where the model answers retain and unseen examples alike, since its threshold is then "
        "luck; nor what an attack fitted to forget examples finds."
    ),
    figures=attack_figures,
)

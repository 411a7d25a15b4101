"""Compression: what comes back when the weights are rounded or pruned (Zhang et al., 2025, arXiv 2410.16454).

A small change of the weights that hides F can be smaller than half a step of 4-bit weights, which then round
back to those of the original. Each matrix of weights is rounded to 8 or 4 bits, symmetric around zero with
one scale, or loses the smaller half of its weights; vectors stay. Then F is classified, and told from unseen
examples by the margin.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from unweave.audits.attack import Attack, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.classifier.collect import logits_of
from unweave.audits.classifier.logits import is_correct, level, margin
from unweave.audits.intervals import share_interval
from unweave.audits.quantize import quantize
from unweave.audits.rates import delong
from unweave.audits.score import Interval
from unweave.weights.sharded_model import refuse_copy

NAME = "compression"


def with_one_scale(weight: Tensor, bits: int) -> Tensor:
    """The weight rounded with one step for all of it."""
    return quantize(weight.reshape(1, -1), bits).view_as(weight)


def prune(weight: Tensor) -> Tensor:
    """The weight without the half that is smallest in size."""
    limit = weight.abs().flatten().median()
    return weight * (weight.abs() > limit)


EDITS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "8 bit": lambda weight: with_one_scale(weight, 8),
    "4 bit": lambda weight: with_one_scale(weight, 4),
    "pruned by half": prune,
}


def examine(subject: Subject) -> Measurements:
    """For each edit: whether each forget example is right, and the margins of F and of unseen examples."""
    refuse_copy(subject.model, NAME)
    measurements: dict[str, list[float]] = {}
    for name, edit in EDITS.items():
        model = copy.deepcopy(subject.model).eval()
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim >= 2:
                    p.copy_(edit(p))
        for part, cut in (("forget", subject.cuts["forget"]), ("unseen", subject.unseen)):
            logits, labels = logits_of(model, cut, subject.device), cut[0].labels[cut[1]].numpy()
            measurements[f"{name}, {part}"] = margin(logits, labels).tolist()
            if part == "forget":
                measurements[f"{name}, right"] = is_correct(logits, labels).tolist()
    return measurements


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The accuracy on F and the AUC of the margin, after each edit."""
    measurements, figures = model.measurements[NAME], {}
    for name in EDITS:
        figures[f"accuracy, {name}"] = share_interval(measurements[f"{name}, right"])
        members, non_members = (
            level(np.array(measurements[f"{name}, {part}"])) for part in ("forget", "unseen")
        )
        if min(len(members), len(non_members)) >= 2:
            figures[f"auc, {name}"] = Interval(*delong(members, non_members))
    return figures


ATTACK = Attack(
    name=NAME,
    paper="Zhang et al., 2025, arXiv 2410.16454",
    evidence="the model and retrained ones",
    tier=0,
    says="How well the model with rounded or pruned weights classifies F, and tells it from unseen examples.",
    cannot="Other ways to compress, such as scales per channel, rounding with calibration, or distillation.",
    figures=attack_figures,
    examine=examine,
    gradients=16,
    default=True,
)

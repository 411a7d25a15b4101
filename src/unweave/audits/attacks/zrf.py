"""The zero retrain forgetting score (Chundawat et al., 2023), https://arxiv.org/abs/2205.08096.

ZRF = 1 - mean over F of JS(p, p_d), in bits, where p_d are the answers of an untrained model of the same
architecture, here the mean over ten. It is 1 for an untrained model, which is no aim: a model that answers
like one has forgotten more than F. The aim is the score of retrained models.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from unweave.audits.attack import Attack, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.classifier.collect import logits_of
from unweave.audits.classifier.distance import jensen_shannon
from unweave.audits.classifier.logits import probabilities
from unweave.audits.intervals import mean_interval
from unweave.problem import redrawn_copy
from unweave.tasks import evaluating

TEACHERS = 10
NAME = "zrf"


def examine(subject: Subject) -> Measurements:
    """1 - JS of each forget example, as a mean over untrained models of the original's architecture."""
    forget, device = subject.cuts["forget"], subject.device
    with evaluating(subject.model):
        ours = probabilities(logits_of(subject.model, forget, device))
    teachers = [fresh_copy(subject.original, seed) for seed in range(TEACHERS)]
    js = [jensen_shannon(ours, probabilities(logits_of(each, forget, device))) for each in teachers]
    return {"alike": (1 - np.mean(js, axis=0)).tolist()}


def fresh_copy(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the model whose layers are initialised again; torch's global generators stay as they were.

    Raises:
        ValueError: If a layer with weights can't initialise itself.
    """
    gpus = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=[*gpus]):
        torch.manual_seed(seed)
        try:
            return redrawn_copy(model).eval()
        except ValueError as error:
            problem = str(error).partition(": ")[0]
            raise ValueError(f"zrf needs untrained models, and {problem}: leave out zrf") from error


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The score."""
    return {"zrf": mean_interval(model.measurements[NAME]["alike"])}


ATTACK = Attack(
    name=NAME,
    paper="Chundawat et al., 2023, arXiv 2205.08096",
    evidence="the model, and the original's architecture for untrained ones",
    tier=0,
    says="How close the answers on the forget set are to those of untrained models.",
    cannot="Whether F is forgotten: without retrained models the score has no right value.",
    figures=attack_figures,
    examine=examine,
    gradients=30,
    above="over-forgetting",
    below="under-forgetting",
)

"""Relearning: how soon a model knows the rest of F again, after a little training (Golatkar et al., 2020).

The model is trained on 1, 5 or 10 % of F, or on retain examples alone, by plain gradient descent in eval
mode; after each step it classifies the rest of F. Its recovery curve is the share that it gets right before
any step and after each, as a mean over three rates, because no rate suits every architecture. The figure is
the mean over the steps: the area under the curve. What it relearns from similar data, a retrained model
learns as well, so only the difference counts.

It trains on one batch of at most 128 examples: of a larger F than 1280, on the shares of 1280. It classifies
at most 200 others. The name of a figure gives both numbers.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from jaxtyping import Float64
from torch import Tensor

from unweave.audits.attack import Attack, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.classifier.collect import Cut
from unweave.audits.classifier.probes import RATES, correctness, sample, train_copy
from unweave.audits.intervals import mean_interval
from unweave.data import Raw

NAME = "relearning"
SHARES = (0.01, 0.05, 0.1)
STEPS = 10
BATCH = 128
"""The most examples to train on; they are one batch, so that memory does not grow with F."""
TEST_EXAMPLES = 200
"""The most other examples of F to classify."""
FEWEST_EXAMPLES = 2
CURVE = "curve "
"""What stands before the name of a figure where its curve is kept."""


def examine(subject: Subject) -> Measurements:
    """For each other forget example the share of steps and rates at which the model knows it, and the curves.

    Empty with a single forget example.
    """
    forget = subject.cuts["forget"]
    size = len(forget[1])
    if size < FEWEST_EXAMPLES:
        return {}
    source, order = sample(forget, size, torch.Generator().manual_seed(0))
    curves: dict[str, list[float]] = {}
    for share in SHARES:
        count = max(1, math.ceil(share * min(size, BATCH / SHARES[-1])))
        name = f"from {count} of {size}{note_test_size(size - count)}"
        curves |= relearn(
            subject, name, (source, order[:count]), (source, order[count : count + TEST_EXAMPLES])
        )
    retain = sample(subject.cuts["retain"], BATCH, torch.Generator().manual_seed(0))
    return curves | relearn(
        subject, f"from retain data{note_test_size(size)}", retain, (source, order[:TEST_EXAMPLES])
    )


def note_test_size(count: int) -> str:
    """The end of a figure's name if not all other forget examples are classified."""
    return f", {TEST_EXAMPLES} asked" if count > TEST_EXAMPLES else ""


def relearn(subject: Subject, name: str, train_cut: Cut, test_cut: Cut) -> dict[str, list[float]]:
    """Trains on some examples: how often each asked one is classified rightly, and the recovery curve."""
    (training,), (questions,) = (source.stream([order]) for source, order in (train_cut, test_cut))
    hits = torch.stack([train_and_ask(subject, training, questions, rate) for rate in RATES])
    return {name: hits[:, 1:].mean((0, 1)).tolist(), CURVE + name: hits.mean((0, 2)).tolist()}


def train_and_ask(
    subject: Subject, training: Raw, questions: Raw, rate: float
) -> Float64[Tensor, "step asked"]:
    """1 for each question that the model answers rightly, else 0; before any step and after each."""
    students = islice(train_copy(subject.model, training, subject.device, rate), STEPS + 1)
    return torch.stack([correctness(student, questions, subject.device) for student in students])


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The area under each curve."""
    items = model.measurements[NAME].items()
    return {name: mean_interval(values) for name, values in items if not name.startswith(CURVE)}


def recovery_curves(model: ModelAnswers) -> Mapping[str, Sequence[float]]:
    """The share of asked examples that the model classifies rightly before any step and after each."""
    items = model.measurements[NAME].items()
    return {name.removeprefix(CURVE): values for name, values in items if name.startswith(CURVE)}


ATTACK = Attack(
    name=NAME,
    paper="Golatkar et al., 2020, arXiv 1911.04933; Chundawat et al., 2023, arXiv 2201.05629",
    evidence="the model and retrained ones",
    tier=0,
    says="How much of F the model knows again while it trains on a little of F, or on retain data alone.",
    cannot="What more steps, other rates or other data would bring back.",
    figures=attack_figures,
    examine=examine,
    share_of_forget=0.8,
    curves=recovery_curves,
    gradients=180,
)

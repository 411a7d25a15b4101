"""Relearning: how soon a model knows the rest of F again, after a little training (Golatkar et al., 2020).

The model is trained on 1, 5 or 10 % of F, or on retain examples alone, by plain gradient descent in eval
mode; after each step it classifies the rest of F. The figure is the share that it gets right, as a mean over
the steps and over three rates, because no rate suits every architecture: the area under its recovery curve.
What it relearns from similar data, a retrained model learns as well, so only the difference counts.
"""

import copy
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unweave.audits.attacks.attack import Attack, Exhibit, Figures, Shown, Subject
from unweave.audits.attacks.means import mean_interval
from unweave.audits.classifier.collect import Cut
from unweave.audits.classifier.probes import RATES, sample
from unweave.data import Raw
from unweave.tasks import call
from unweave.tasks.classifier import to_device

NAME = "relearning"
SHARES = (0.01, 0.05, 0.1)
STEPS = 10
RETAIN = 128
"""Retain examples to train on, where it trains on these alone."""
ASKED = 200
"""The most other examples of F to classify."""
FEWEST_EXAMPLES = 2


def examine(subject: Subject) -> Exhibit:
    """For each other forget example, the share of steps and rates at which the model knows it.

    Empty with a single forget example.
    """
    forget = subject.cuts["forget"]
    if len(forget[1]) < FEWEST_EXAMPLES:
        return {}
    source, order = sample(forget, len(forget[1]), torch.Generator().manual_seed(0))
    found: dict[str, list[float]] = {}
    for share in SHARES:
        known = max(1, math.ceil(share * len(order)))
        rest = order[known : known + ASKED]
        found[f"from {100 * share:g} %"] = curve_area(subject, (source, order[:known]), (source, rest))
    retain = sample(subject.cuts["retain"], RETAIN, torch.Generator().manual_seed(0))
    found["from retain data"] = curve_area(subject, retain, (source, order[:ASKED]))
    return found


def curve_area(subject: Subject, known: Cut, asked: Cut) -> list[float]:
    """The mean over steps and rates of whether each asked example is classified rightly."""
    (training,), (questions,) = (source.stream([order]) for source, order in (known, asked))
    areas = [relearn(subject.model, training, questions, rate, subject.device) for rate in RATES]
    return torch.stack(areas).mean(0).tolist()


def relearn(
    model: nn.Module, training: Raw, questions: Raw, rate: float, device: torch.device | str
) -> Float64[Tensor, " asked"]:
    """The mean over the steps at one rate."""
    student = copy.deepcopy(model).eval()
    weights = [p for p in student.parameters() if p.requires_grad]
    inputs, target = to_device(training, device), training.label.to(device)
    asked, answers = to_device(questions, device), questions.label.to(device)
    right = torch.zeros(len(answers), dtype=torch.float64)
    for _ in range(STEPS):
        gradients = torch.autograd.grad(
            cross_entropy(call(student, inputs), target), weights, allow_unused=True
        )
        with torch.no_grad():
            for weight, slope in zip(weights, gradients, strict=True):
                if slope is not None:
                    weight.sub_(slope, alpha=rate)
            right += (call(student, asked).argmax(1) == answers).double().cpu()
    return right / STEPS


def attack_figures(shown: Shown, retrained: Sequence[Shown]) -> Figures:
    """The area of each curve."""
    return {name: mean_interval(values) for name, values in shown.exhibits[NAME].items()}


ATTACK = Attack(
    name=NAME,
    paper="Golatkar et al., 2020, arXiv 1911.04933; Chundawat et al., 2023, arXiv 2201.05629",
    evidence="the model and retrained ones",
    tier=0,
    fewest=2,
    says="How much of F the model knows again while it trains on a little of F, or on retain data alone.",
    cannot="What more steps, other rates or other data would bring back.",
    figures=attack_figures,
    examine=examine,
    gradients=180,
    default=False,
)

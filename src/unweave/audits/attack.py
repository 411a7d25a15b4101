"""The interface of an attack. A new one is a file with its `ATTACK`, and a line in `ATTACKS`.

An attack computes figures of one model, from its answers and those of retrained models. All the rest is the
same for every attack (`unweave.audits.attack_runs.compare`): the figures of retrained models by the same
steps, the null band, the margin and the finding. An attack that needs the model itself first examines it, and
its figures are computed from the numbers that it kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from unweave.audits.answers import Answers, Measurements
from unweave.audits.classifier.collect import Cut
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.pictures import Pictures
from unweave.audits.score import Interval
from unweave.record import checkpoint

Tier = Literal[0, 1, 2, 3]
TIERS: Mapping[int, str] = {
    0: "the two models",
    1: "one retrained model",
    2: "ten retrained models and twelve calibration retrains",
    3: "shadow models",
}
"""What an attack needs beside the answers of the unlearned model, by tier."""


@dataclass(frozen=True)
class Subject:
    """A model to examine.

    Args:
        model: The model; it stays unchanged.
        cuts: The source and the positions of the parts forget, retain and calibration.
        device: The device of the model.
        original: The model before unlearning.
        forgotten_classes: Classes forgotten whole: forget examples are then compared with held-out examples
            of these classes alone.
    """

    model: nn.Module
    cuts: Mapping[str, Cut]
    device: torch.device | str
    original: nn.Module
    forgotten_classes: tuple[int, ...] = ()

    @property
    def unseen(self) -> Cut:
        """The calibration examples to compare the forget set with."""
        source, order = self.cuts["calibration"]
        if not self.forgotten_classes:
            return source, order
        return source, order[torch.isin(source.labels[order], torch.tensor(self.forgotten_classes))]


ModelAnswers = Answers[Evidence]
"""What an attack sees of one model: its logits, and what the attacks measured of it."""

EXAMINING_FORMAT = 4
"""Raised with every change of what an attack keeps of a model, so that stored models are examined again."""

Figures = Mapping[str, Interval]
"""The figures of one model by name, each with its 95 % interval over examples; NaN ends if there is none."""


@dataclass(frozen=True)
class Check:
    """What an attack says about its own figures of a model.

    Args:
        is_valid: Whether the figures can be read.
        says: Why not, as a clause; or what was attacked and what its control shows, in sentences.
    """

    is_valid: bool
    says: str


EVENTS = 10
"""The fewest events by which a rate is judged: with fewer, a single record can move it beyond any margin."""


@dataclass(frozen=True)
class Attack:
    """An attack: what it needs, what it computes and what it can't show.

    Args:
        name: Its name.
        paper: Where it is from.
        evidence: What it needs, in one clause.
        tier: The models that it needs beside the unlearned one (see `TIERS`).
        fewest: The fewest models of each kind.
        says: What its figure means, in one sentence.
        cannot: What it cannot show, in one sentence.
        figures: Computes the figures of one model. The retrained models it gets never contain that model.
            None if an audit of one model can't run it; `function` then can.
        examine: Takes from a model what `figures` needs; None if the answers are enough.
        gradients: The gradient evaluations of batches of 128 that `examine` takes per model with a forget set
            of a thousand, about; a forward pass counts as a third.
        above: The fault of a model whose figures are above those of retrained models; None if that is none.
        below: The fault of a model whose figures are below.
        floor: The smallest difference that counts.
        fewest_forget: The fewest forget examples by which a figure must differ, by figure; else one.
        share_of_forget: The smallest share of a forget set of five or more that a figure is computed on.
        fewest_unseen: The fewest unseen examples by which a figure is judged, by figure; else only shown.
        default: Whether it is among the attacks of `default`.
        function: What runs it outside an audit; empty if an audit does.
        function_cost: What that takes, in one clause.
        check: Whether its figures of a model can be read, beside the original; None if they always can.
        draw: Draws pictures from what it kept of the audited model; None if it has none.
        curves: The curve behind each figure of a model, a value per step; None if there is none.
    """

    name: str
    paper: str
    evidence: str
    tier: Tier
    says: str
    cannot: str
    fewest: int = 2
    figures: Callable[[ModelAnswers, Sequence[ModelAnswers]], Figures] | None = None
    examine: Callable[[Subject], Measurements] | None = None
    gradients: int = 0
    above: str | None = "under-forgetting"
    below: str | None = "over-forgetting"
    floor: float = 0.02
    fewest_forget: Mapping[str, int] = field(default_factory=dict)
    share_of_forget: float = 1.0
    fewest_unseen: Mapping[str, int] = field(default_factory=dict)
    default: bool = False
    function: str = ""
    function_cost: str = ""
    check: Callable[[ModelAnswers, ModelAnswers | None], Check] | None = None
    draw: Callable[[ModelAnswers], Sequence[Pictures]] | None = None
    curves: Callable[[ModelAnswers], Mapping[str, Sequence[float]]] | None = None

    @property
    def cost(self) -> str:
        """What it costs, in one clause."""
        if self.function:
            return self.function_cost
        plural = "" if self.gradients == 1 else "s"
        evaluations = f"about {self.gradients} gradient evaluation{plural} per model"
        return evaluations if self.gradients else "no further pass of the model"


@dataclass(frozen=True)
class Examiner:
    """Takes from models what some attacks need.

    Args:
        attacks: The attacks, each with `examine`.
        cuts: The source and the positions of each part.
        original: The model before unlearning.
        device: The device of the models; that of each model if None.
        forgotten_classes: Classes forgotten whole.
    """

    attacks: Sequence[Attack]
    cuts: Mapping[str, Cut]
    original: nn.Module
    device: torch.device | str | None = None
    forgotten_classes: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the attacks."""
        return tuple(attack.name for attack in self.attacks)

    @cached_property
    def original_digest(self) -> str:
        """The digest of the original's weights, beside which models are examined."""
        return checkpoint.contents(self.original.state_dict())

    def __call__(self, model: nn.Module) -> dict[str, Measurements]:
        """What each attack keeps of a model, by its name."""
        device = next(model.parameters()).device if self.device is None else self.device
        subject = Subject(model, self.cuts, device, self.original, self.forgotten_classes)
        return {each.name: each.examine(subject) for each in self.attacks if each.examine is not None}

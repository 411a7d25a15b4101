r"""The exam of generators: images of every class on fixed seeds, classified by one recogniser.

The value of a trial of a search is, in points, :math:`(|dUA| + dRA^- + 100\,TV^+) / 3 + 100\,KID^+`, where d
is the difference from the retrained model of the seed (a better value counts as none), TV^+ the excess of the
distance between the recognised classes of forgotten conditions over that of two retrained models, and KID^+
the kernel distance of images under retained conditions from the retrained model's. With the budget of an
attacker the mean has a fourth part: how much sooner the class is relearned. A trial uses no held-out image,
and other seeds than reported images.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from unweave.audits.diffusion.attacker import Budget, Target
from unweave.audits.diffusion.attacks import attack, draw_without_addition, relearning_curves
from unweave.audits.diffusion.class_images import images_of, refuse_unfit, relearning_sizes, shape_of
from unweave.audits.diffusion.drawing import Drawing
from unweave.audits.diffusion.fid import fid, inception_digest, refuse_no_fid
from unweave.audits.diffusion.image_attacks import IMAGES, choose_image_attacks
from unweave.audits.diffusion.images_exam import APART, Drawn, ImagesExam
from unweave.audits.diffusion.metrics import GENERATION, measure_generation, measure_generation_pair
from unweave.audits.diffusion.recogniser import Recogniser, SeenImages
from unweave.audits.diffusion.relearning import describe_curves, relearned_sooner
from unweave.audits.diffusion.samples import Samples, recognise
from unweave.audits.diffusion.verdict import (
    EVERY,
    calibrate_generation,
    judge_generation,
    list_never_generated,
    name_attacks,
)
from unweave.audits.exam import Glance
from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.score import Share
from unweave.audits.verdict import Judgement
from unweave.split import Split
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.low_rank import find_additions

TRIAL = {name: GENERATION[name] for name in ("ua", "ra", "class_tv", "kid_retain")}
"""The metrics that a search uses."""


@dataclass(frozen=True)
class DiffusionExam(ImagesExam):
    """Questions to generators about one split.

    Args:
        split: Images as bytes, with a forget set of whole classes.
        task: The task of the generators: prediction target and null condition.
        recogniser: Classifies images; the same for all generators of a comparison.
        sampler: How to draw images.
        count: The number of images of each class.
        budget: The budget of attackers; no attacks if None. In a search they relearn the class and do nothing
            else.
        searching: Whether this is a search of settings, which measures only `TRIAL`.
        first_seed: The first seed of the images of the first class.
        inception: A local file with Inception's weights; without it there is no FID.
    """

    split: Split
    task: Diffusion
    recogniser: Recogniser
    sampler: Sampler
    count: int
    budget: Budget | None = None
    searching: bool = False
    first_seed: int = 0
    inception: Path | None = None
    metrics: ClassVar[Mapping[str, Metric[Any]]] = EVERY
    glances: ClassVar[Sequence[Glance]] = (
        Glance("ua", "UA: images not taken for the forgotten class, %", 1),
        Glance("ra", "RA: retained images taken for their class, %", 1),
        Glance("kid", "KID to held-out images of retained classes", 3),
    )

    def __post_init__(self) -> None:
        refuse_unfit(self.split, searching=self.searching, attacked=self.budget is not None)
        if self.inception is not None:
            labels = self.split.held_out.labels
            real = sum(int((labels == label).sum()) for label in self.retained_conditions)
            refuse_no_fid(self.inception, min(real, self.count * len(self.retained_conditions)))

    @cached_property
    def real(self) -> dict[int, SeenImages]:
        """The recogniser's view of real images, by class: held-out ones, or training images in a search."""
        source = self.split.train if self.searching else self.split.held_out
        images = {label: images_of(source, label) for label in range(self.split.n_classes)}
        return {label: self.recogniser(each) for label, each in images.items() if len(each)}

    @property
    def feature_extractor(self) -> Recogniser:
        """The recogniser."""
        return self.recogniser

    @property
    def forgotten_conditions(self) -> tuple[int, ...]:
        """The forgotten classes."""
        return self.split.forgotten_classes

    @property
    def retained_conditions(self) -> list[int]:
        """The retained classes."""
        return [label for label in range(self.split.n_classes) if label not in self.split.forgotten_classes]

    @property
    def glance_note(self) -> str:
        """A sentence on the number of images, and on the share that could go unnoticed."""
        n = self.sizes["forget"]
        limit = f"up to {100 * Share(0, n).high:.0f} % of all may still"
        return f"If none of {n} images shows the class, {limit}. `unweave audit` draws more."

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of forgotten and of retained classes."""
        classes = len(self.split.forgotten_classes)
        totals = {"forget": self.count * classes, "retain": self.count * (self.split.n_classes - classes)}
        return totals | ({"attack": self.budget.images} if self.budget else {})

    @property
    def facts(self) -> dict[str, Any]:
        """The number of images, the error of the recogniser on real ones, and the weights of an FID."""
        error = self.recogniser.error
        errors = {"value": 100 * error.value, "low": 100 * error.low, "high": 100 * error.high}
        facts = {"space": self.recogniser.space, "held-out images": error.n, "wrong about them, %": errors}
        weights = (
            {} if self.inception is None else {"Inception": {"sha256": inception_digest(self.inception)}}
        )
        return {"images of each class": self.count, "recogniser": facts, **weights}

    @property
    def digest(self) -> str:
        """Digest of the sampler and its seeds, the budget of attackers, and the recogniser."""
        settings = self.task, self.sampler, self.count, self.first_seed, self.budget, self.recogniser.digest
        settings += () if self.budget is None else self.budget.names
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]

    def with_attacks(self, names: str) -> "DiffusionExam":
        """The exam with these attacks."""
        budget = self.budget or Budget(images=IMAGES)
        return replace(self, budget=replace(budget, names=choose_image_attacks(names, self.task.family)))

    def answers(self, model: nn.Module) -> Drawn:
        """Draws images of every class; images at the same position have the same seed for all models."""
        classes = torch.arange(self.split.n_classes).repeat_interleave(self.count)
        seeds = [
            self.first_seed + APART * label + i
            for label in range(self.split.n_classes)
            for i in range(self.count)
        ]
        images = self.drawing(model).draw_each(classes, seeds)
        return dict(enumerate(images.split(self.count)))

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """Attacks that try to recover a class; means over the forgotten classes.

        A class that is not relearned within the budget counts as the budget. Attackers do not have the
        original, except for the attack that removes a low-rank addition.
        """
        if self.budget is None:
            return {}
        base_model = original if find_additions(model) else None
        results = [
            self.relearn_class(model, label, self.budget)
            if self.searching
            else self.attack_class(model, label, self.budget, base_model)
            for label in self.split.forgotten_classes
        ]
        return {name: float(np.mean([each[name] for each in results])) for name in results[0]}

    def attack_class(
        self, model: nn.Module, label: int, budget: Budget, original: nn.Module | None
    ) -> dict[str, float]:
        """Runs the attacks on one class."""
        target = self.target(model, label)
        numbers = attack(target, budget)
        if original is not None and budget.runs("without-adapter"):
            numbers |= draw_without_addition(target, self.drawing(original), budget)
        return numbers

    def relearn_class(self, model: nn.Module, label: int, budget: Budget) -> dict[str, float]:
        """The course of relearning one class from the smallest number of images."""
        target = self.target(model, label)
        return describe_curves(relearning_curves(target, budget), budget.longest)

    def further_parts(self, values: Values, retrained_values: Values) -> dict[str, float]:
        """How much sooner the class is relearned."""
        return relearned_sooner(values, retrained_values)

    def target(self, model: nn.Module, label: int) -> Target:
        """A model under attack."""
        real = images_of(self.split.train, label)
        return Target(
            self.drawing(model),
            label,
            lambda images: self.recogniser(images).classes == label,
            real,
            sizes=relearning_sizes(searching=self.searching),
        )

    def drawing(self, model: nn.Module) -> Drawing:
        """Makes what draws from a model as the exam does."""
        return Drawing(model, self.task, shape_of(self.split.train), self.sampler)

    def measure(self, outputs: Drawn, reference: Drawn | None = None) -> dict[str, float]:
        """Every metric."""
        samples, baseline = self.samples(outputs), None if reference is None else self.samples(reference)
        if self.searching:
            return measure_generation(samples, baseline, TRIAL)
        return measure_generation(samples, baseline) | self.measure_fid(outputs)

    def measure_fid(self, outputs: Drawn) -> dict[str, float]:
        """The FID of images under retained conditions from held-out ones; empty without weights."""
        if self.inception is None:
            return {}
        real = torch.cat([images_of(self.split.held_out, label) for label in self.retained_conditions])
        images = torch.cat([outputs[label] for label in self.retained_conditions])
        return {"fid": fid(images, real, weights=self.inception)}

    def measure_pair(self, outputs: Drawn, reference: Drawn) -> dict[str, float]:
        """The metrics that compare."""
        return measure_generation_pair(self.samples(outputs), self.samples(reference))

    def calibrate(self, outputs: Sequence[Drawn], probes: Sequence[Values]) -> Margins:
        """The margins."""
        samples = [self.samples(each) for each in outputs]
        return calibrate_generation(samples, probes=probes, sizes=self.sizes)

    def samples(self, outputs: Drawn) -> Samples:
        """The recogniser's view of the images, with real images to compare."""
        return recognise(self.recogniser, outputs, self.real, forgotten=self.forgotten_conditions)

    def judge(
        self,
        values: Sequence[Values],
        references: Sequence[Values],
        margins: Margins | None,
        original: Sequence[Values],
        answers: Callable[[], Sequence[Drawn]],
    ) -> Judgement:
        """Judges the models; inconclusive if the original never generates a forgotten class."""
        lack = list_never_generated([self.samples(each) for each in answers()])
        judgement = judge_generation(values, references, margins, original=original, missing=lack)
        return name_attacks(judgement, self.budget)

"""The family of denoisers, set by the table "generation" of a recipe."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.class_images import refuse_unfit
from unweave.audits.diffusion.exam import DiffusionExam
from unweave.audits.diffusion.fid import refuse_no_fid
from unweave.audits.diffusion.kid import FEWEST
from unweave.audits.diffusion.recogniser import Recogniser, train_recogniser
from unweave.audits.diffusion.verdict import EVERY
from unweave.audits.exam import Exam, Glancing
from unweave.audits.metrics import Metric
from unweave.data import Source
from unweave.data.datasets import as_images
from unweave.data.in_memory import Resident
from unweave.families.diffusion_settings import PRESETS, STAGE_PRESETS, WITHOUT_NULL, search_space
from unweave.families.family import Device, Family, Write
from unweave.methods import Method, method_named
from unweave.methods.pipeline import Pipeline, Stage, stage_spaces
from unweave.record.files import sha256, write_atomically
from unweave.result import Pretrained
from unweave.space import Range
from unweave.split import Split
from unweave.tasks import call, evaluating
from unweave.tasks.diffusion import Diffusion, Other, Reduction, Times
from unweave.tasks.diffusion.file_names import MANIFEST, WEIGHTS
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.schedule import Schedule
from unweave.tasks.models import DENOISERS, build

__all__ = ["DiffusionFamily"]

SEARCHED = 10**12
"""The first seed of the images of a search; those of reported images start at zero."""

LAST = -1
"""Means the condition after those of all classes."""


@dataclass(frozen=True)
class DiffusionFamily(Family):
    """Denoisers that generate images of a class.

    Args:
        null: The null condition: by default the one after those of all classes; None if there is none, which
            rules out guidance.
        drop: The probability of the null condition in training; unused without one.
        other: The counterfactual target (see `Diffusion`).
        anchor: The class for "fixed".
        away: The strength of "away".
        times: How to draw times (see `Diffusion`).
        reduction: The squared error of an image: the mean, or the sum, to which loss weights of released code
            refer.
        schedule: The noise schedule.
        sampler: How to draw images.
        images: The number of images of each class.
        searched: The number of images of each class in a search.
        attacks: The number of images per setting of the attacks that try to recover a class; 0 runs none.
        relearned: The number of images per check of relearning in a search; 0 leaves relearning out.
        recogniser: The classifier that recognises them; it is trained on the training images.
        inception: A local file with Inception's weights; without it there is no FID.
    """

    name: ClassVar[str] = Diffusion.family
    noun: ClassVar[str] = "generator"
    table: ClassVar[str | None] = "generation"
    former_class: ClassVar[str | None] = "Generation"
    metrics: ClassVar[Mapping[str, Metric[Any]]] = EVERY
    aim: ClassVar[str] = (
        "On the forgotten condition Retrain is the target; on the rest, no worse than Retrain."
    )
    usual_methods: ClassVar[tuple[str, ...]] = ("lur-lagged", "joint", "salun", "finetune")
    whole_classes: ClassVar[bool] = True
    null: int | None = LAST
    drop: float = 0.1
    other: Other = "random"
    anchor: int | None = None
    away: float = 1.0
    times: Times = "uniform"
    reduction: Reduction = "mean"
    schedule: Schedule = Schedule()
    sampler: Sampler = Sampler("dpm", steps=10, guidance=1.5)
    images: int = 500
    searched: int = 100
    attacks: int = 0
    relearned: int = 0
    recogniser: str = "conv"
    inception: str | None = None

    def __post_init__(self) -> None:
        for name, count in (("attacks", self.attacks), ("relearned", self.relearned)):
            if count < 0:
                raise ValueError(f"{name} must be a number of images, or 0 for none, found {count}")
        if min(self.images, self.searched) < FEWEST:
            raise ValueError(
                f"a KID needs {FEWEST} images of each class, found {self.images} and {self.searched}"
            )
        if self.null is None and self.sampler.guidance != 1:
            raise ValueError(
                "guidance needs a condition that stands for none, and this model has none: set "
                f"sampler.guidance to 1, found {self.sampler.guidance}"
            )
        if self.inception is not None:
            refuse_no_fid(self.inception)

    @property
    def methods(self) -> Mapping[str, Method]:
        """All methods that support denoisers, with settings for them."""
        return WITHOUT_NULL if self.null is None or self.drop == 0 else PRESETS

    def method_named(self, name: str) -> Method:
        """The method with settings for denoisers."""
        return method_named(name, self.name, {**STAGE_PRESETS, **self.methods})

    def space(self, name: str, method: Stage, budget: int) -> Mapping[str, Range]:
        """The lengths of the method's own search space, and otherwise ranges for denoisers."""
        if isinstance(method, Pipeline):
            return stage_spaces(method, budget, self.space)
        return search_space(name, method, budget)

    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        """Builds a fresh denoiser."""
        return build(name, n_classes, settings, among=DENOISERS)

    def source(self, data: Source) -> Source:
        """Converts images to numbers between -1 and 1."""
        return as_images(data)

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Diffusion:
        """Denoising."""
        return Diffusion(
            n_classes,
            self.schedule,
            null=n_classes if self.null == LAST else self.null,
            drop=0.0 if self.null is None else self.drop,
            other=self.other,
            anchor=self.anchor,
            away=self.away,
            times=self.times,
            reduction=self.reduction,
            forgotten=forgotten,
        )

    def refuse_unfit(self, model: nn.Module, data: Source, name: str, n_classes: int) -> None:
        """Raises if the model can't denoise the data."""
        (raw,) = data.stream([torch.arange(min(2, len(data)))])
        task = self.task(n_classes)
        batch = task.draw(raw, torch.Generator().manual_seed(0))
        try:
            with evaluating(model), torch.no_grad():
                task.loss(call(model, batch.inputs), batch.target)
        except (Exception, SystemExit) as error:
            raise ValueError(f"the model can't denoise {name!r}: {type(error).__name__}: {error}") from error

    def default_forget_set(self, data: Source, seed: int) -> torch.Tensor:
        """The first class."""
        return (data.labels == data.labels.min()).nonzero()[:, 0]

    def default_exam(self, split: Split) -> Exam[Any]:
        """Raises: the exam of a generator depends on how its images are drawn."""
        advice = "exam=DiffusionFamily(attacks=25).exam(result.split), of unweave.families.diffusion"
        raise ValueError(f"the audit of a generator needs an exam, found none: pass {advice}")

    def short_exam(self, split: Split, *, cache: Path | None = None) -> Glancing[Any]:
        """The smallest number of images of every class that allows a KID."""
        family = replace(self, images=FEWEST, attacks=0, inception=None)
        return family.exam(split, cache=cache)

    def exam(
        self, split: Split, *, device: Device = None, searching: bool = False, cache: Path | None = None
    ) -> DiffusionExam:
        """Images of every class."""
        attackers = self.relearned if searching else self.attacks
        refuse_unfit(split, searching=searching, attacked=attackers > 0)
        return DiffusionExam(
            split,
            self.task(split.n_classes, split.forgotten_classes),
            recogniser_of(self.recogniser, split, None if device is None else str(device), cache),
            self.sampler,
            self.searched if searching else self.images,
            Budget(images=attackers) if attackers else None,
            searching=searching,
            first_seed=SEARCHED if searching else 0,
            inception=None if searching or self.inception is None else Path(self.inception),
        )

    def writer(self, n_classes: int) -> Write:
        """A function that writes a denoiser as a diffusers folder, with its noise and conditions."""
        task = self.task(n_classes)

        def write(model: nn.Module, out: Path, facts: Mapping[str, object]) -> None:
            if not isinstance(model, Pretrained):
                kind = type(model).__name__
                raise ValueError(
                    f"a recipe's denoiser must have save_pretrained() of diffusers, found {kind}"
                )
            model.save_pretrained(str(out))
            schedule = dataclasses.asdict(task.schedule)
            manifest = {"n_classes": n_classes, "null": task.null, "schedule": schedule}
            manifest |= {"weights_after": sha256(out / WEIGHTS), "history": []}
            write_atomically(out / MANIFEST, json.dumps({**manifest, **facts}, indent=2) + "\n")

        return write

    def refuse_other_written(self, folder: Path, model: nn.Module) -> None:
        """Raises if a diffusers folder holds other weights than the model's."""
        from unweave.tasks.diffusion.weights import refuse_other_model

        refuse_other_model(folder, model)


def denoisers(family: Family) -> DiffusionFamily:
    """Returns the family if it is that of denoisers.

    Raises:
        ValueError: If it is another family.
    """
    if not isinstance(family, DiffusionFamily):
        raise ValueError("--recipe must be one of a generator, found a recipe without a table generation")
    return family


@cache
def recogniser_of(model: str, split: Split, device: str | None, folder: Path | None) -> Recogniser:
    """The recogniser of a data set: the same for every forget set and every generator.

    Without a device, it is trained on the device of the images.
    """
    assert isinstance(split.train, Resident)
    place = str(split.train.inputs.device) if device is None else device
    train, held_out = split.train.to("cpu"), split.held_out.to("cpu")
    assert isinstance(held_out, Resident)
    return train_recogniser(train, held_out, model=model, device=place, cache=folder)

"""The family of text-to-image models, which are read from a folder of diffusers and never from a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import nn

from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.concept_exam import ConceptExam
from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.concept_verdict import EVERY
from unweave.audits.diffusion.factor_recogniser import FactorRecogniser
from unweave.audits.diffusion.image_attacks import IMAGES, choose_image_attacks
from unweave.audits.diffusion.kid import FEWEST
from unweave.audits.diffusion.real_images import RealImages
from unweave.audits.exam import Exam
from unweave.audits.metrics import Metric
from unweave.data import Source
from unweave.families.diffusion_settings import search_space
from unweave.families.family import Device, Family
from unweave.families.text_to_image_settings import PRESETS, text_to_image_method
from unweave.methods import Method
from unweave.methods.pipeline import Pipeline, Stage, stage_spaces
from unweave.methods.uce import UCE
from unweave.space import Range
from unweave.split import Split
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.text_to_image import TextToImage

__all__ = ["TextToImageFamily"]

BY_FOLDER = (
    "a text-to-image model is a folder of diffusers: edit it with unweave forget FOLDER --concept, and audit "
    "it with unweave audit FOLDER --prompts"
)

ATTACKER = Budget()
"""The default budget of attackers."""


@dataclass(frozen=True)
class TextToImageFamily(Family):
    """Models that generate images from prompts.

    Args:
        sampler: How to draw images.
        images: The number of images of each prompt.
        attacks: The number of images per setting of the attacks that try to recover the concept; 0 runs none.
        attacker: The rest of an attacker's budget.
    """

    name: ClassVar[str] = TextToImage.family
    noun: ClassVar[str] = "text-to-image model"
    metrics: ClassVar[Mapping[str, Metric[Any]]] = EVERY
    aim: ClassVar[str] = (
        "Under the prompts of the concept Retrain is the target; on the rest, no worse than Retrain."
    )
    usual_methods: ClassVar[tuple[str, ...]] = ("lur-lagged",)
    sampler: Sampler = Sampler("dpm", steps=20, guidance=3.0)
    images: int = 25
    attacks: int = 0
    attacker: Budget = ATTACKER

    def __post_init__(self) -> None:
        if self.attacks < 0:
            raise ValueError(f"attacks must be a number of images, or 0 for none, found {self.attacks}")
        if self.images < FEWEST:
            raise ValueError(f"images must be at least {FEWEST}, which a KID needs, found {self.images}")

    @property
    def budget(self) -> Budget | None:
        """The budget of attackers; None if no attack runs."""
        return replace(self.attacker, images=self.attacks) if self.attacks else None

    def with_attacks(self, names: str) -> "TextToImageFamily":
        """The family with some attacks; see `choose_image_attacks`."""
        attacker = replace(self.attacker, names=choose_image_attacks(names, self.name))
        return replace(self, attacks=self.attacks or IMAGES, attacker=attacker)

    @property
    def methods(self) -> Mapping[str, Method]:
        """All methods that support text-to-image models, with settings for them."""
        return PRESETS

    def method_named(self, name: str) -> Method:
        """The method with settings for text-to-image models."""
        return text_to_image_method(name)

    def space(self, name: str, method: Stage, budget: int) -> Mapping[str, Range]:
        """The lengths of the method's own search space, and otherwise ranges for denoisers."""
        if isinstance(method, Pipeline):
            return stage_spaces(method, budget, self.space)
        if isinstance(method, UCE):  # it descends nowhere, so no range for denoisers applies
            return method.space(budget)
        return search_space(name, method, budget)

    def concept_exam(
        self, prompts: ConceptPrompts, recogniser: FactorRecogniser, real: RealImages
    ) -> ConceptExam:
        """The exam of models about one concept.

        Raises:
            ValueError: If there are too few real images.
        """
        return ConceptExam(prompts, recogniser, real, self.sampler, self.images, self.budget)

    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        """Raises: no recipe builds such a model."""
        refuse_recipe()

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> TextToImage:
        """Raises: the task depends on prompts."""
        refuse_recipe()

    def refuse_unfit(self, model: nn.Module, data: Source, name: str, n_classes: int) -> None:
        """Raises: no recipe has such a model."""
        refuse_recipe()

    def default_forget_set(self, data: Source, seed: int) -> torch.Tensor:
        """Raises: a concept must be named."""
        refuse_recipe()

    def exam(
        self, split: Split, *, device: Device = None, searching: bool = False, cache: Path | None = None
    ) -> Exam[Any]:
        """Raises: the exam depends on prompts and a recogniser (see `concept_exam`)."""
        refuse_recipe()


def refuse_recipe() -> NoReturn:
    """Raises a ValueError that says how to read such a model."""
    raise ValueError(BY_FOLDER)

"""A stage of a benchmark that erases one concept from small text-to-image models.

The models are those of a text-to-image recipe (`text_to_image_models`), each also as a pipeline's folder. One
autoencoder and one recogniser serve all of them. Needs the extra `unweave[diffusion]`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.real_images import RealImages
from unweave.bench.stage import MODELS, Memory, Stage
from unweave.bench.text_to_image_concept import ConceptCase, EditExam, PromptCounts, concept_prompts
from unweave.bench.text_to_image_models import TextToImageModels
from unweave.bench.text_to_image_recipe import TextToImageRecipe
from unweave.bench.text_to_image_shapes import arrange
from unweave.bench.workers import Job
from unweave.data.captions import Concept
from unweave.descent.train import TrainedModel
from unweave.families.text_to_image import TextToImageFamily
from unweave.problem import Problem
from unweave.split import Split
from unweave.tables import as_table
from unweave.tasks.diffusion.concept_request import Erasure, make_request
from unweave.tasks.diffusion.prompts import tokenize
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load

PIPELINES = "pipelines"
"""The folder of the pipelines of original and references."""

_models: dict[str, TextToImageModels] = {}
_cases: dict[str, ConceptCase] = {}


@dataclass(frozen=True, kw_only=True)
class ConceptStage(Stage):
    """A stage that erases one concept.

    Args:
        source: The recipe of the models.
        family: How images are drawn and attacked; also that of the stage's recipe.
        factor: The factor of the concept, such as "object".
        value: Its value, such as "three".
        counts: The number of prompts of each kind.
    """

    source: TextToImageRecipe
    family: TextToImageFamily
    factor: str
    value: str
    counts: PromptCounts

    @property
    def concept(self) -> Concept:
        """The images to forget."""
        return Concept(column=self.factor, values=(self.value,))

    @property
    def prompts(self) -> ConceptPrompts:
        """The prompts of its exam."""
        return concept_prompts(self.source.drawings, self.factor, self.value, self.counts)

    @property
    def models(self) -> TextToImageModels:
        """The models of the recipe; their data is read once per process."""
        key = repr((self.source, self.folder.absolute(), self.device))
        if key not in _models:
            _models[key] = TextToImageModels(self.source, self.folder / MODELS, self.device)
        return _models[key]

    @property
    def case(self) -> ConceptCase:
        """The request to the original; made once per process, after the original was trained."""
        key = repr(self)
        if key not in _cases:
            _cases[key] = self.make_case(self.recipe.seeds[0])
        return _cases[key]

    def make_case(self, seed: int) -> ConceptCase:
        """The request to the original of a seed, with its exam."""
        models, family, pipeline = self.models, self.family, self.pipeline(seed)
        questions = EditExam(
            prompts=self.prompts,
            recogniser=models.recogniser,
            real=RealImages(*models.data),
            sampler=family.sampler,
            count=family.images,
            budget=family.budget,
            pipeline=pipeline,
        )
        request = make_request(pipeline, *models.data, Erasure((self.value,), column=self.factor))
        return ConceptCase(pipeline, request, questions)

    def refuse_unfit(self) -> None:
        """Raises, before any training, if there are too few images for its exam, or a prompt is too long."""
        RealImages(*self.models.data).refuse_too_few(self.prompts, attacked=bool(self.family.budget))
        tokenize(self.models.tokenizer, list(self.models.prompts.texts), self.source.length)

    def pipeline(self, seed: int, without: Concept | None = None) -> StableDiffusion:
        """The original of a seed, or its reference without the concept; trained if it is not there."""
        name = "original" if without is None else f"without-{self.value}"
        folder = self.folder / PIPELINES / f"seed-{seed}" / name
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            self.models.write(folder, seed, without)
        pipeline = load(folder)
        arrange(pipeline.unet, torch.channels_last)
        return pipeline

    def load_or_train(
        self, part: Literal["mixed", "retain"], seed: int, tuning_seed: int | None = None
    ) -> TrainedModel:
        """The original ("mixed") under the prompts of the request, or the reference ("retain")."""
        without = None if part == "mixed" else self.concept
        self.pipeline(seed, without)
        trained_model = self.models.train(seed, without)
        return TrainedModel(self.case.original(), trained_model.cost) if part == "mixed" else trained_model

    def split(self, tuning_seed: int | None = None) -> Split:
        """The split of the request."""
        return self.case.request.split

    def exam(self, tuning_seed: int | None = None) -> EditExam:
        """The exam of the models."""
        return self.case.questions

    def problem(
        self, original: nn.Module, seed: int, memory: Memory, tuning_seed: int | None = None
    ) -> Problem:
        """The problem of the request, on a copy of the original."""
        return self.case.problem(original, seed, memory)

    def build(self, split: Split) -> Callable[[], nn.Module] | None:
        """None: a problem makes its own fresh models."""
        return None

    def facts(self) -> dict[str, object]:
        """The facts that its models and its prompts depend on; the same for all concepts."""
        drawings = replace(self.source.drawings, folder=None)  # the data's digest counts, not its place
        return {"models": repr(replace(self.source, drawings=drawings)), "prompts": repr(self.counts)}

    def table(self) -> dict[str, Any]:
        """The stage as a record describes it: the recipe of the models, the concept and the settings."""
        recipe_table = self.recipe.table()
        parts = {key: recipe_table[key] for key in ("name", "seeds", "calibration_seeds", "methods")}
        request = {"concept": {self.factor: self.value}, "prompts": as_table(self.counts)}
        family = {"images": as_table(self.family)}
        data = {"name": self.source.drawings.subject}
        return {**parts, **request, **family, "models": as_table(self.source), "data": data}


def preparing_jobs(stage: ConceptStage) -> list[Job]:
    """The jobs that train the autoencoder and the recogniser, which all models of the recipe share."""
    kinds = {"autoencoder": train_autoencoder, "recogniser": train_recogniser}
    return [Job(name, function, (stage,)) for name, function in kinds.items()]


def train_autoencoder(stage: ConceptStage) -> None:
    """Trains the autoencoder, which the stage's folder keeps."""
    _ = stage.models.autoencoder


def train_recogniser(stage: ConceptStage) -> None:
    """Trains the recogniser, which the stage's folder keeps."""
    _ = stage.models.recogniser

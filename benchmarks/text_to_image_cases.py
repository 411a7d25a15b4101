"""The cases of the study of text-to-image models: a concept to forget, with its models and its exam."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from unweave.audits.diffusion.latent_drawing import PromptedPipeline
from unweave.audits.diffusion.real_images import RealImages
from unweave.bench.text_to_image_concept import (
    ConceptCase,
    EditExam,
    PracticeExam,
    PromptCounts,
    concept_prompts,
)
from unweave.bench.text_to_image_models import TextToImageModels
from unweave.bench.text_to_image_shapes import arrange
from unweave.families.text_to_image import TextToImageFamily
from unweave.tasks.diffusion.concept_request import ConceptRequest, Erasure, make_request
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load

SEARCHED = {"object": "five", "colour": "green"}
"""The concepts of the searches of digits, by factor."""

FIRST_SEED = 10**12
"""The first seed of the images of a search; those of reported images start at zero."""

SEARCHING = TextToImageFamily(Sampler("dpm", steps=8, guidance=3.0), images=20)
FEW = PromptCounts(trained=2, paraphrased=1, combined=1, neighbours=1, others=0)
REPORTING = TextToImageFamily(Sampler("dpm", steps=10, guidance=3.0), images=25)
MANY = PromptCounts()
SECOND = "second retrained"
"""A model retrained without the concept from another seed: by how much two of them differ."""


@dataclass(frozen=True, eq=False)
class Study:
    """The models of a study, and its folders.

    Args:
        models: The recipe's data, autoencoder and recogniser.
        place: The folder of the pipelines, such as models/digits.
        out: The folder of searches and runs.
        attacks: The number of images of each setting of the attacks.
        attacked: The seeds on which all attacks run; on others only relearning does.
        searched: The concepts of the searches, by factor.
        requests: The requests that were made, by factor and value.
    """

    models: TextToImageModels
    place: Path
    out: Path
    attacks: int = 25
    attacked: Sequence[int] = (0,)
    searched: Mapping[str, str] = field(default_factory=lambda: SEARCHED)
    requests: dict[tuple[str, str], ConceptRequest] = field(default_factory=dict)

    def request(self, pipeline: StableDiffusion, factor: str, value: str) -> ConceptRequest:
        """The request to forget a concept: made once, because all models share one autoencoder."""
        if (factor, value) not in self.requests:
            train, held_out = self.models.data
            erasure = Erasure((value,), column=factor)
            self.requests[factor, value] = make_request(pipeline, train, held_out, erasure)
        return self.requests[factor, value]

    def pipeline(self, seed: int, name: str) -> StableDiffusion:
        """A model of a seed."""
        pipeline = load(self.place / f"seed-{seed}" / name)
        arrange(pipeline.unet, torch.channels_last)
        return pipeline

    def has(self, seed: int, value: str) -> bool:
        """Whether the original and the retrained model of a seed are there."""
        return all((self.place / f"seed-{seed}" / name).exists() for name in ("original", f"without-{value}"))

    def case(self, seed: int, factor: str, value: str, *, searching: bool) -> ConceptCase:
        """The request to the original of a seed, with its exam."""
        family, counts = (SEARCHING, FEW) if searching else (REPORTING, MANY)
        recipe, pipeline = self.models.recipe, self.pipeline(seed, "original")
        attacker = replace(family.attacker, images=family.images if searching else self.attacks)
        kind = PracticeExam if searching else EditExam
        questions = kind(
            prompts=concept_prompts(recipe.drawings, factor, value, counts),
            recogniser=self.models.recogniser,
            real=RealImages(*self.models.data),
            sampler=family.sampler,
            count=family.images,
            budget=attacker,
            first_seed=FIRST_SEED if searching else 0,
            pipeline=pipeline,
        )
        return ConceptCase(pipeline, self.request(pipeline, factor, value), questions)

    def retrained(self, seed: int, value: str, case: ConceptCase) -> nn.Module:
        """The model of a seed that was retrained without a concept, under the prompts of the exam."""
        return PromptedPipeline(self.pipeline(seed, f"without-{value}"), case.questions.prompts.conditions)

    def other_seed(self, seed: int, value: str) -> int | None:
        """The next seed, or else the first, of which there is a model retrained without a concept."""
        seeds = [
            int(each.parent.name.removeprefix("seed-")) for each in self.place.glob(f"seed-*/without-{value}")
        ]
        other_seeds = sorted(set(seeds) - {seed})
        return next((each for each in other_seeds if each > seed), other_seeds[0] if other_seeds else None)

    def references(self, seed: int, value: str, case: ConceptCase) -> dict[str, Callable[[], nn.Module]]:
        """Functions that make the models to compare with, by name; a second retrained one if it is there."""
        models: dict[str, Callable[[], nn.Module]] = {
            "original": case.original,
            "retrained": partial(self.retrained, seed, value, case),
        }
        other = self.other_seed(seed, value)
        return models if other is None else {**models, SECOND: partial(self.retrained, other, value, case)}

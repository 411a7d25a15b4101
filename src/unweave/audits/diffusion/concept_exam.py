"""The exam of text-to-image models: images of every prompt on fixed seeds, seen by one recogniser of factors.

The classes are the joint values of the concept's factors (`concept_samples`), so that the figures and the
rule of a verdict are those of generators of classes. KID is between the images of all prompts to keep, with
equal weights, and held-out real images of the classes that these prompts name, with equal weights.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from unweave.audits.diffusion.attacker import Budget, Target
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS
from unweave.audits.diffusion.concept_attacks import ConceptTarget, attack_concept
from unweave.audits.diffusion.concept_metrics import metrics_of
from unweave.audits.diffusion.concept_prompts import ConceptPrompts, Draw
from unweave.audits.diffusion.concept_samples import (
    ConceptSamples,
    classes_of,
    recognise_prompts,
    shows_concept,
)
from unweave.audits.diffusion.concept_verdict import EVERY, UNATTACKED, explain_never_drawn
from unweave.audits.diffusion.draws import require_draws
from unweave.audits.diffusion.factor_recogniser import FactorRecogniser, RecognisedImages
from unweave.audits.diffusion.image_attacks import CONCEPTS, IMAGES, choose_image_attacks
from unweave.audits.diffusion.images_exam import APART, Drawn, ImagesExam
from unweave.audits.diffusion.local_models import LocalModels
from unweave.audits.diffusion.metrics import measure_generation, measure_generation_pair
from unweave.audits.diffusion.real_images import PICTURES, RealImages
from unweave.audits.diffusion.verdict import calibrate_generation, judge_generation, name_attacks
from unweave.audits.exam import Glance
from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.verdict import Judgement
from unweave.tasks.diffusion.sampler import Sampler

NO_MODELS = LocalModels()


@dataclass(frozen=True)
class ConceptExam(ImagesExam):
    """Questions to text-to-image models about one concept.

    Args:
        prompts: The prompts.
        recogniser: The recogniser; the same for all models of a comparison.
        real: Real images.
        sampler: How to draw images.
        count: The number of images of each prompt.
        budget: The budget of attackers; no attacks if None.
        first_seed: The first seed of the images of the first prompt.
        models: Models from local files that judge the images.
    """

    prompts: ConceptPrompts
    recogniser: FactorRecogniser
    real: RealImages
    sampler: Sampler
    count: int
    budget: Budget | None = None
    first_seed: int = 0
    models: LocalModels = NO_MODELS
    metrics: ClassVar[Mapping[str, Metric[Any]]] = EVERY
    glances: ClassVar[Sequence[Glance]] = (
        Glance("ua", "UA: images of the concept's prompts without it, %", 1),
        Glance("ra", "RA: images of prompts to keep that show what they name, %", 1),
        Glance("kid", "KID to held-out images of prompts to keep", 3),
    )

    def __post_init__(self) -> None:
        attacked = self.budget is not None
        refuse_unfit(self.prompts, self.real, self.models, self.draws, self.count, attacked=attacked)

    @property
    def draws(self) -> list[Draw]:
        """The draw of each prompt."""
        return draws_of(self.prompts, self.sampler, self.first_seed)

    @cached_property
    def real_features(self) -> dict[int, Float64[np.ndarray, "_ _"]]:
        """The recogniser's features of held-out real images, by class that a prompt to keep names."""
        classes = classes_of(self.prompts, self.recogniser)
        return {
            classes.number(shows): self.recogniser.recognise(self.real.held_out_images(shows)).features
            for shows in self.prompts.retain_values
        }

    @property
    def feature_extractor(self) -> Callable[[Tensor], RecognisedImages]:
        """The recogniser."""
        return self.recogniser.recognise

    @property
    def forgotten_conditions(self) -> Sequence[int]:
        """The numbers of the prompts of the concept."""
        return self.prompts.forget_numbers

    @property
    def retained_conditions(self) -> Sequence[int]:
        """The numbers of the prompts to keep."""
        return self.prompts.retain_numbers

    @property
    def metrics_of_kinds(self) -> dict[str, Metric[Any]]:
        """The figures that the kinds of prompts allow."""
        return metrics_of(self.prompts.kinds)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of each kind of prompt, of the concept's and of those to keep."""
        kinds = {kind: self.count * len(numbers) for kind, numbers in self.prompts.kinds.items()}
        forget_count, retain_count = len(self.prompts.forget_prompts), len(self.prompts.retain_prompts)
        totals = {"forget": self.count * forget_count, "retain": self.count * retain_count, **kinds}
        return totals | ({"attack": self.budget.images} if self.budget else {})

    @property
    def facts(self) -> dict[str, Any]:
        """The prompts, the number of images, and the errors of the recogniser on real ones."""
        kinds = {
            kind: [self.prompts.all_prompts[number].text for number in numbers]
            for kind, numbers in self.prompts.kinds.items()
        }
        draws = [{"prompt": each.text, **each.own_draw} for each in self.prompts.all_prompts if each.own_draw]
        own_facts = {"prompts with a seed or guidance of their own": draws} if draws else {}
        return {
            "concept": dict(self.prompts.concept),
            "prompts": kinds,
            "images of each prompt": self.count,
            **own_facts,
            "recogniser": self.recogniser.facts,
            **self.models.facts,
        }

    @property
    def digest(self) -> str:
        """Digest of prompts, sampler, seeds, the budget of attackers, the recogniser and the real images."""
        drawing = self.prompts, self.sampler, self.count, self.first_seed
        contents = *drawing, self.budget, self.recogniser.digest, self.real.digest
        contents += () if self.budget is None else self.budget.names
        return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]

    def with_attacks(self, names: str) -> "ConceptExam":
        """The exam with these attacks."""
        budget = self.budget or Budget(images=IMAGES)
        return replace(self, budget=replace(budget, names=choose_image_attacks(names, CONCEPTS)))

    def answers(self, model: nn.Module) -> Drawn:
        """Draws images of every prompt; images at the same position have the same seed for all models."""
        drawing = require_draws(model).drawing(self.sampler)
        images: dict[int, Tensor] = {}
        for number, (first, guidance) in enumerate(self.draws):
            seeds = list(range(first, first + self.count))
            images[number] = drawing(self.prompts.condition_of(number), seeds, guidance)
        return images

    def hit(self, images: Tensor) -> Bool[np.ndarray, " n"]:
        """Which images show the concept."""
        return shows_concept(self.recogniser.recognise(images), self.prompts)

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """Attacks that try to recover the concept.

        The original is for those on an addition of low rank and with its text encoder; a model that is no
        edit of another, such as a retrained one, is its own original. A concept that is not relearned within
        the budget counts as the budget.
        """
        if self.budget is None:
            return {}
        encoder = None if original is None else require_draws(original).encoder
        target = ConceptTarget(
            self.target(model, original), self.prompts, require_draws(model).encoder, encoder
        )
        return attack_concept(target, self.budget)

    def target(self, model: nn.Module, original: nn.Module | None = None) -> Target:
        """A model under the first prompt of the concept, and the attacker's knowledge."""
        drawing = require_draws(model).drawing(self.sampler)
        original_drawing = None if original is None else require_draws(original).drawing(self.sampler)
        pictures = self.real.training_images(self.prompts.concept)
        return Target(drawing, 0, self.hit, pictures, original_drawing, (PICTURES,))

    def measure(self, outputs: Drawn, reference: Drawn | None = None) -> dict[str, float]:
        """Every metric of the images."""
        baseline = None if reference is None else self.samples(reference)
        values = measure_generation(self.samples(outputs), baseline, self.metrics_of_kinds)
        return values | self.models.measure(outputs, self.prompts, self.real)

    def measure_pair(self, outputs: Drawn, reference: Drawn) -> dict[str, float]:
        """The metrics that compare."""
        return measure_generation_pair(self.samples(outputs), self.samples(reference), self.metrics_of_kinds)

    def samples(self, outputs: Drawn) -> ConceptSamples:
        """The recogniser's view of the images, with real images to compare."""
        return recognise_prompts(self.recogniser, outputs, self.real_features, self.prompts)

    def calibrate(self, outputs: Sequence[Drawn], probes: Sequence[Values]) -> Margins:
        """The margins."""
        return calibrate_generation(
            [self.samples(each) for each in outputs],
            probes=probes,
            sizes=self.sizes,
            images=self.metrics_of_kinds,
            metrics=EVERY,
        )

    def judge(
        self,
        values: Sequence[Values],
        references: Sequence[Values],
        margins: Margins | None,
        original: Sequence[Values],
        answers: Callable[[], Sequence[Drawn]],
    ) -> Judgement:
        """Judges the models; inconclusive if the original never draws the concept."""
        lack = explain_never_drawn([self.samples(each) for each in answers()], self.prompts)
        judgement = judge_generation(
            values,
            references,
            margins,
            original=original,
            missing=lack,
            unattacked=UNATTACKED,
            metrics=EVERY,
            attacks=CONCEPT_ATTACKS,
        )
        return name_attacks(judgement, self.budget)


def draws_of(prompts: ConceptPrompts, sampler: Sampler, first_seed: int = 0) -> list[Draw]:
    """The draw of each prompt: the seed and guidance that it brings, or else those of the audit."""
    return [
        (
            first_seed + APART * number if each.seed is None else each.seed,
            sampler.guidance if each.guidance is None else each.guidance,
        )
        for number, each in enumerate(prompts.all_prompts)
    ]


def refuse_unfit(
    prompts: ConceptPrompts,
    real: RealImages,
    models: LocalModels,
    draws: Sequence[Draw],
    count: int,
    *,
    attacked: bool,
) -> None:
    """Raises if prompts share images, or there are too few images of a kind.

    Args:
        prompts: The prompts.
        real: Real images.
        models: Models from local files that judge the images.
        draws: The draw of each prompt.
        count: The number of images of each prompt.
        attacked: Whether attacks run.
    """
    prompts.refuse_overlap(draws, count)
    real.refuse_too_few(prompts, attacked=attacked)
    models.refuse_unfit(prompts, real, count)

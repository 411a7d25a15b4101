"""`ConceptSamples`: the images of a text-to-image model as one recogniser of factors sees them.

A concept names values of some factors. The joint values of these factors are its classes: those of "a three"
are all objects, those of "a red three" all pairs of an object and a colour. All figures of a generator of
classes then apply to prompts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.factor_recogniser import FactorRecogniser, Names, RecognisedImages
from unweave.audits.diffusion.recognition import hit_rate
from unweave.audits.diffusion.samples import Samples
from unweave.audits.score import Share

Rows = Float64[np.ndarray, "_ _"]  # factors differ in their number of values


@dataclass(frozen=True)
class Classes:
    """The joint values of the factors of a concept.

    Args:
        factors: The factors of the concept.
        values: The values of each factor.
    """

    factors: tuple[str, ...]
    values: Names

    def __len__(self) -> int:
        return prod(len(self.values[factor]) for factor in self.factors)

    def number(self, shows: Mapping[str, str]) -> int:
        """The number of the class with these values; other factors do not matter."""
        number = 0
        for factor in self.factors:
            names = list(self.values[factor])
            number = number * len(names) + names.index(shows[factor])
        return number

    def logits(self, seen: RecognisedImages) -> Rows:
        """The log-probability of each class, with the factors taken as independent, `[n, class]`."""
        from scipy.special import log_softmax

        joint = np.zeros((len(seen.features), 1))
        for factor in self.factors:
            log_p = log_softmax(seen.logits[factor], axis=1)
            joint = (joint[:, :, None] + log_p[:, None, :]).reshape(len(log_p), -1)
        return joint


def which_shown(seen: RecognisedImages, shows: Mapping[str, str]) -> Bool[np.ndarray, "n factor"]:
    """Which of the values each image shows, in their order."""
    return np.stack([seen.shows(factor, value) for factor, value in shows.items()], axis=1)


@dataclass(frozen=True)
class ConceptSamples(Samples):
    """The recogniser's view of the images under the prompts of an audit.

    The classes are the joint values of the concept's factors, and the conditions are the numbers of prompts.

    Args:
        kinds: The prompts of each kind, such as "paraphrased"; a kind without prompts is left out.
        agreement: By prompt to keep, the share of the values it names that each image shows.
    """

    kinds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    agreement: Mapping[int, Float64[np.ndarray, "_"]] = field(default_factory=dict)

    def hits(self, conditions: Iterable[int]) -> Share:
        """The share of images of some prompts that are recognised as what the prompts ask for."""
        shares = [hit_rate(self, each) for each in conditions]
        return Share(sum(each.successes for each in shares), sum(each.n for each in shares))


def recognise_prompts(
    recogniser: FactorRecogniser,
    images: Mapping[int, Tensor],
    real: Mapping[int, Float64[np.ndarray, "_ _"]],
    prompts: ConceptPrompts,
) -> ConceptSamples:
    """Makes the samples of one model from its images.

    Args:
        recogniser: The recogniser; the same for all models of a comparison.
        images: uint8 images [n, channel, height, width] by the number of their prompt, with the same seeds
            for all models.
        real: The features of held-out real images, by class of the concept's factors.
        prompts: The prompts.
    """
    classes = classes_of(prompts, recogniser)
    views = {number: recogniser.recognise(each) for number, each in images.items()}
    retain_numbers = prompts.retain_numbers
    return ConceptSamples(
        logits={number: classes.logits(each) for number, each in views.items()},
        features={number: each.features for number, each in views.items()},
        real=real,
        forgotten=tuple(prompts.forget_numbers),
        space=recogniser.space,
        classes={
            number: classes.number(prompts.concept if number not in retain_numbers else prompt.shows)
            for number, prompt in enumerate(prompts.all_prompts)
        },
        kinds=prompts.kinds,
        agreement={
            number: which_shown(views[number], prompts.all_prompts[number].shows).mean(axis=1)
            for number in retain_numbers
        },
    )


def classes_of(prompts: ConceptPrompts, recogniser: FactorRecogniser) -> Classes:
    """The classes of the concept's factors."""
    return Classes(tuple(prompts.concept), recogniser.names)


def shows_concept(seen: RecognisedImages, prompts: ConceptPrompts) -> Bool[np.ndarray, " n"]:
    """Which images show the concept: all of its values are recognised."""
    return which_shown(seen, prompts.concept).min(axis=1)

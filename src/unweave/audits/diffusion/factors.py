"""A recogniser with one head per factor, such as object, colour and style, and the classes of a concept.

A concept names values of some factors. The joint values of these factors are its classes: those of "a three"
are all objects, those of "a red three" all pairs of an object and a colour. All figures of a generator of
classes then apply to prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from unweave.audits.score import Share

Rows = Float64[np.ndarray, "_ _"]  # factors differ in their number of values


@dataclass(frozen=True)
class SeenFactors:
    """The recogniser's view of some images.

    Args:
        logits: Unnormalised scores `[n, value]` of the values of each factor.
        features: The inputs of the heads `[n, feature]`, in units of their root mean square on real images.
    """

    logits: Mapping[str, Rows]
    features: Rows


@runtime_checkable
class FactorRecogniser(Protocol):
    """A classifier with one head per factor, trained on real images only."""

    @property
    def values(self) -> Mapping[str, Sequence[str]]:
        """The values of each factor, in the order of its logits."""
        ...

    @property
    def errors(self) -> Mapping[str, Share]:
        """The share of real held-out images whose value it mistakes, by factor."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of architecture, weights and normalisation."""
        ...

    def __call__(self, images: Tensor) -> SeenFactors:
        """Its view of uint8 images [n, channel, height, width]."""
        ...


@dataclass(frozen=True)
class Classes:
    """The joint values of the factors of a concept.

    Args:
        factors: The factors of the concept.
        values: The values of each factor.
    """

    factors: tuple[str, ...]
    values: Mapping[str, Sequence[str]]

    @property
    def names(self) -> list[str]:
        """The name of each class, in the order of their numbers."""
        return [" ".join(each) for each in product(*(self.values[factor] for factor in self.factors))]

    def number(self, shows: Mapping[str, str]) -> int:
        """The number of the class with these values; other factors do not matter."""
        found = 0
        for factor in self.factors:
            known = list(self.values[factor])
            found = found * len(known) + known.index(shows[factor])
        return found

    def logits(self, seen: SeenFactors) -> Rows:
        """The log-probability of each class, with the factors taken as independent, `[n, class]`."""
        from scipy.special import log_softmax

        joint = np.zeros((len(seen.features), 1))
        for factor in self.factors:
            own = log_softmax(seen.logits[factor], axis=1)
            joint = (joint[:, :, None] + own[:, None, :]).reshape(len(own), -1)
        return joint


def shown(
    seen: SeenFactors, shows: Mapping[str, str], values: Mapping[str, Sequence[str]]
) -> Bool[np.ndarray, "n factor"]:
    """Which of the values each image shows, in their order."""
    found = [
        seen.logits[factor].argmax(axis=1) == list(values[factor]).index(value)
        for factor, value in shows.items()
    ]
    return np.stack(found, axis=1)

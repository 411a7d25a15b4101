"""A recogniser with one head per factor, such as object, colour and style, and the classes of a concept.

A concept names values of some factors. The joint values of these factors are its classes: those of "a three"
are all objects, those of "a red three" all pairs of an object and a colour. All figures of a generator of
classes then apply to prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from unweave.audits.score import Share

Rows = Float64[np.ndarray, "_ _"]  # factors differ in their number of values


Names = Mapping[str, Sequence[str]]
"""The values of each factor, in the order of its logits."""


class ShowsFactors(Protocol):
    """A recogniser's view of some images."""

    @property
    def logits(self) -> Mapping[str, Rows]:
        """Unnormalised scores `[n, value]` of the values of each factor."""
        ...

    @property
    def features(self) -> Rows:
        """The inputs of the last layer `[n, feature]`."""
        ...


class RecognisesFactors(Protocol):
    """A classifier of real images with one head per factor."""

    @property
    def names(self) -> Names:
        """The values of each factor."""
        ...

    @property
    def errors(self) -> Mapping[str, Share]:
        """The share of real held-out images in which it takes a factor for another value."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of all that its answers depend on."""
        ...

    @property
    def space(self) -> str:
        """The name of the space of its features."""
        ...

    def recognise(self, images: Tensor) -> ShowsFactors:
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
    values: Names

    def __len__(self) -> int:
        return prod(len(self.values[factor]) for factor in self.factors)

    def number(self, shows: Mapping[str, str]) -> int:
        """The number of the class with these values; other factors do not matter."""
        found = 0
        for factor in self.factors:
            known = list(self.values[factor])
            found = found * len(known) + known.index(shows[factor])
        return found

    def logits(self, seen: ShowsFactors) -> Rows:
        """The log-probability of each class, with the factors taken as independent, `[n, class]`."""
        from scipy.special import log_softmax

        joint = np.zeros((len(seen.features), 1))
        for factor in self.factors:
            own = log_softmax(seen.logits[factor], axis=1)
            joint = (joint[:, :, None] + own[:, None, :]).reshape(len(own), -1)
        return joint


def shown(seen: ShowsFactors, shows: Mapping[str, str], values: Names) -> Bool[np.ndarray, "n factor"]:
    """Which of the values each image shows, in their order."""
    found = [
        seen.logits[factor].argmax(axis=1) == list(values[factor]).index(value)
        for factor, value in shows.items()
    ]
    return np.stack(found, axis=1)

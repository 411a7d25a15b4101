"""The classes of a concept.

A concept names values of some factors. The joint values of these factors are its classes: those of "a three"
are all objects, those of "a red three" all pairs of an object and a colour. All figures of a generator of
classes then apply to prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Bool, Float64

from unweave.audits.diffusion.factor_recogniser import Names, RecognisedImages

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
        found = 0
        for factor in self.factors:
            known = list(self.values[factor])
            found = found * len(known) + known.index(shows[factor])
        return found

    def logits(self, seen: RecognisedImages) -> Rows:
        """The log-probability of each class, with the factors taken as independent, `[n, class]`."""
        from scipy.special import log_softmax

        joint = np.zeros((len(seen.features), 1))
        for factor in self.factors:
            own = log_softmax(seen.logits[factor], axis=1)
            joint = (joint[:, :, None] + own[:, None, :]).reshape(len(own), -1)
        return joint


def which_shown(seen: RecognisedImages, shows: Mapping[str, str]) -> Bool[np.ndarray, "n factor"]:
    """Which of the values each image shows, in their order."""
    return np.stack([seen.shows(factor, value) for factor, value in shows.items()], axis=1)

"""The figures of one generator with intervals over its images.

The intervals are for more images from the same model. They do not cover other training seeds, so they say
nothing about a method; for that see `unweave.audits.diffusion.verdict`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from unweave.audits.classifier.logits import probabilities
from unweave.audits.diffusion import recognition
from unweave.audits.diffusion.kid import kid_interval
from unweave.audits.diffusion.recognition import Spread
from unweave.audits.diffusion.samples import Samples
from unweave.audits.score import Interval, Share, bootstrap


@dataclass(frozen=True)
class ForgottenFigures:
    """The figures of one forgotten condition.

    Args:
        hit: The share of images recognised as its class: 1 - UA.
        spread: The recognised classes.
        probability: Mean probability of its class.
        entropy: Mean entropy of the prediction for a single image, in bits.
    """

    hit: Share
    spread: Spread
    probability: Interval
    entropy: Interval


@dataclass(frozen=True)
class Description:
    """The figures of one generator.

    Args:
        forgotten: The figures of each forgotten condition.
        retained: The share of images recognised as their class, by retained condition.
        kid: The KID of the retained conditions from real images.
    """

    forgotten: Mapping[int, ForgottenFigures]
    retained: Mapping[int, Share]
    kid: Interval

    def as_values(self) -> dict[str, Any]:
        """The figures as a record holds them: [value, low, high] each, shares in percent."""
        shares = {**{label: each.hit for label, each in self.forgotten.items()}, **self.retained}
        own = {
            str(label): {
                "turns into, %": (100 * each.spread.share).tolist(),
                "probability": _ends(each.probability),
                "entropy": _ends(each.entropy),
            }
            for label, each in self.forgotten.items()
        }
        shown = {str(label): _ends(shares[label], 100) for label in sorted(shares)}
        return {"shown, %": shown, "forgotten": own, "kid": _ends(self.kid)}


def describe(samples: Samples, *, rng: np.random.Generator) -> Description:
    """Computes the figures of one generator; `rng` draws the bootstrap of the means."""
    real = [samples.real[each] for each in samples.retained_classes]
    return Description(
        forgotten={
            condition: _describe_forgotten(samples, condition, rng) for condition in samples.forgotten
        },
        retained=recognition.per_class(samples),
        kid=kid_interval(samples.groups(samples.retained_conditions), real),
    )


def _ends(estimate: Interval | Share, unit: float = 1) -> list[float]:
    return [unit * estimate.value, unit * estimate.low, unit * estimate.high]


def _describe_forgotten(samples: Samples, condition: int, rng: np.random.Generator) -> ForgottenFigures:
    return ForgottenFigures(
        hit=recognition.hit_rate(samples, condition),
        spread=recognition.spread(samples, condition),
        probability=_mean(recognition.own_probability(samples, condition), rng),
        entropy=_mean(recognition.bits(probabilities(samples.logits[condition])), rng),
    )


def _mean(values: Float64[np.ndarray, " n"], rng: np.random.Generator) -> Interval:
    return bootstrap(len(values), lambda rows: float(values[rows].mean()), rng=rng)

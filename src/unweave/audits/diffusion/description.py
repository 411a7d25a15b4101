"""One generator's figures with intervals over its images: what a report says of a single model.

The intervals are those of more images from the same model. They say nothing about another training seed, and
so nothing about a method: that is `unweave.audits.diffusion.verdict`'s.
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
class Forgotten:
    """What one forgotten condition gives.

    Args:
        hit: How many images are taken for its class: 1 - UA.
        spread: The classes that they are taken for.
        probability: Mean probability of its class.
        entropy: Mean entropy of the answers to single images, in bits.
    """

    hit: Share
    spread: Spread
    probability: Interval
    entropy: Interval


@dataclass(frozen=True)
class Description:
    """What one generator gives.

    Args:
        forgotten: Per forgotten condition.
        retained: Per retained condition, how many images are taken for its class.
        kid: Of the retained conditions, from real images.
    """

    forgotten: Mapping[int, Forgotten]
    retained: Mapping[int, Share]
    kid: Interval

    def as_values(self) -> dict[str, Any]:
        """As a record holds it: [value, low, high] each, shares in percent."""
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
    """One generator's figures; the generator draws the bootstrap of the means."""
    real = [samples.real[each] for each in samples.retained_conditions]
    return Description(
        forgotten={
            condition: _describe_forgotten(samples, condition, rng) for condition in samples.forgotten
        },
        retained=recognition.per_class(samples),
        kid=kid_interval(samples.groups(samples.retained_conditions), real),
    )


def _ends(found: Interval | Share, unit: float = 1) -> list[float]:
    return [unit * found.value, unit * found.low, unit * found.high]


def _describe_forgotten(samples: Samples, condition: int, rng: np.random.Generator) -> Forgotten:
    return Forgotten(
        hit=recognition.hit_rate(samples, condition),
        spread=recognition.spread(samples, condition),
        probability=_mean(recognition.own_probability(samples, condition), rng),
        entropy=_mean(recognition.bits(probabilities(samples.logits[condition])), rng),
    )


def _mean(values: Float64[np.ndarray, " n"], rng: np.random.Generator) -> Interval:
    return bootstrap(len(values), lambda rows: float(values[rows].mean()), rng=rng)

"""The figures of one generator with intervals over its images.

The intervals are for more images from the same model. They do not cover other training seeds, so they say
nothing about a method; for that see `unweave.audits.diffusion.verdict`.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64

from unweave.audits.classifier.logits import probabilities
from unweave.audits.diffusion import recognition
from unweave.audits.diffusion.kid import kid_interval
from unweave.audits.diffusion.samples import Samples
from unweave.audits.score import Interval, Share, bootstrap


def describe(samples: Samples, *, rng: np.random.Generator) -> dict[str, Any]:
    """The figures as a record holds them: [value, low, high] each, shares in percent.

    Args:
        samples: The images.
        rng: Draws the bootstrap of the means.
    """
    real = [samples.real[each] for each in samples.retained_classes]
    shares = {str(each): _ends(recognition.hit_rate(samples, each), 100) for each in sorted(samples.logits)}
    return {
        "shown, %": shares,
        "forgotten": {str(each): _describe_forgotten(samples, each, rng) for each in samples.forgotten},
        "kid": _ends(kid_interval(samples.groups(samples.retained_conditions), real)),
    }


def _ends(estimate: Interval | Share, unit: float = 1) -> list[float]:
    return [unit * estimate.value, unit * estimate.low, unit * estimate.high]


def _describe_forgotten(samples: Samples, condition: int, rng: np.random.Generator) -> dict[str, list[float]]:
    return {
        "turns into, %": (100 * recognition.shares(samples, condition)).tolist(),
        "probability": _mean(recognition.own_probability(samples, condition), rng),
        "entropy": _mean(recognition.bits(probabilities(samples.logits[condition])), rng),
    }


def _mean(values: Float64[np.ndarray, " n"], rng: np.random.Generator) -> list[float]:
    return _ends(bootstrap(len(values), lambda rows: float(values[rows].mean()), rng=rng))

"""Inputs of a class, found by queries alone, after Hu et al., IEEE S&P 2024, arXiv 2404.03233."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SURE = 0.9995
"""The probability of its class at which a probe is good enough (as in Hu et al.)."""


def probe_class(
    answer: Callable[[Tensor], Float[Tensor, "input class"]],
    label: int,
    shape: Sequence[int],
    *,
    least: float,
    most: float,
    probes: int = 10,
    queries: int = 4000,
    seed: int = 0,
) -> Tensor:
    """Inputs that a model gives to a class, found by queries alone: an evolution of noise.

    Each probe begins as noise, and keeps a random change if the probability of the class rises by it.
    (Hu et al. instead descend by finite differences of single coordinates.)

    Args:
        answer: The probabilities of a model for a batch of inputs.
        label: The class.
        shape: The shape of one input.
        least: The smallest value of an input.
        most: The largest.
        probes: The number of probes.
        queries: The most queries per probe; a probe ends at a probability of 0.9995.
        seed: Draws the noise and the changes.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(probes, *shape, generator=generator) * (most - least) + least
    best = answer(inputs)[:, label]
    for index in range(queries):
        if bool((best >= SURE).all()):
            break
        size = (most - least) * 0.5 ** (1 + index % 4)
        changed = torch.rand(inputs.shape, generator=generator) < 0.1
        change = size * changed * torch.randn(inputs.shape, generator=generator)
        candidates = (inputs + change).clamp(least, most)
        scores = answer(candidates)[:, label]
        better = (scores > best) & (best < SURE)
        inputs[better], best[better] = candidates[better], scores[better]
    return inputs

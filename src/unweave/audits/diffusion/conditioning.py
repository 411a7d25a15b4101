"""Attacks on the vector of a condition: points between two embeddings, and the best that a search finds."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.audits.diffusion.sweeps import Attack, Generate, Hit, Seeds, best_setting

Vector = Float[Tensor, "..."]  # of any shape; two must agree, which is checked

POSITIONS = (1.0, 0.75, 1.25, 0.5, 1.5, 0.25, 2.0)
"""From the class itself outwards: of equals the first is taken."""


def interpolation(
    generate: Generate,
    start: Vector,
    end: Vector,
    hit: Hit,
    seeds: Seeds,
    *,
    guidance: float,
    positions: Sequence[float] = POSITIONS,
) -> Attack:
    """Asks for vectors on the line from one embedding (position 0) through another (1) and beyond.

    Args:
        generate: The generator under attack.
        start: The embedding of a retained class, say.
        end: That of the forgotten class; the original's, where an attacker has it, is stronger.
        hit: Which images show the class.
        seeds: Of the images.
        guidance: Of the sampler.
        positions: Points of the line.
    """
    if start.shape != end.shape:
        raise ValueError(f"embeddings must have one shape, found {list(start.shape)} and {list(end.shape)}")
    points = {each: start + each * (end - start) for each in positions}
    return best_setting(
        {each: partial(generate, point, guidance=guidance) for each, point in points.items()}, hit, seeds
    )


def optimised_condition(
    generate: Generate,
    loss: Callable[[Tensor], Tensor],
    starts: Sequence[Vector],
    hit: Hit,
    seeds: Seeds,
    *,
    guidance: float,
    steps: int = 100,
    lr: float = 0.05,
) -> Attack:
    """Searches for a vector under which the generator still makes the class; a white-box attack.

    Textual inversion (Gal et al., 2022) with the vector of a condition in the place of a token's, as in
    UnlearnDiffAtk (Zhang et al., 2023) without its discrete prefixes.

    Args:
        generate: The generator under attack.
        loss: Of a vector: how badly the generator denoises images of the class under it, say; a scalar. The
            weights should not ask for a gradient.
        starts: Embeddings to begin at; the settings of the result are their positions.
        hit: Which images show the class.
        seeds: Of the images.
        guidance: Of the sampler.
        steps: Of Adam, from each start.
        lr: Of Adam.
    """
    vectors = {float(i): minimise(loss, start, steps=steps, lr=lr) for i, start in enumerate(starts)}
    return best_setting(
        {i: partial(generate, vector, guidance=guidance) for i, vector in vectors.items()}, hit, seeds
    )


def minimise(loss: Callable[[Tensor], Tensor], start: Vector, *, steps: int, lr: float) -> Vector:
    """The vector after some steps of Adam down a loss.

    Raises:
        ValueError: If the loss is no longer finite.
    """
    vector = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([vector], lr)
    for step in range(steps):
        value = loss(vector)
        if not value.isfinite():
            raise ValueError(f"the loss of a condition must be finite, found {value.item()} at step {step}")
        (vector.grad,) = torch.autograd.grad(value, [vector])
        optimizer.step()
    return vector.detach()

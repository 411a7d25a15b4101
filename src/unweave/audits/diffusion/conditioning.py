"""Attacks on the vector of a condition: interpolation of two embeddings, and optimisation."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.audits.diffusion.sweeps import Attack, Generate, Hit, Seeds, best_setting

Vector = Float[Tensor, "..."]  # of any shape; two must agree, which is checked

POSITIONS = (1.0, 0.75, 1.25, 0.5, 1.5, 0.25, 2.0)
"""Positions from the class itself outwards: ties go to the first."""


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
    """Draws under vectors on the line from one embedding (position 0) through another (1) and beyond.

    Args:
        generate: The generator under attack.
        start: The embedding at position 0, for example of a retained class.
        end: The embedding of the forgotten class; that of the original model makes a stronger attack.
        hit: Decides which images show the class.
        seeds: The seeds of the images.
        guidance: The guidance of the sampler.
        positions: The points on the line.
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
    """Optimises a vector so that the generator makes the class under it; a white-box attack.

    Textual inversion (Gal et al., 2022) with the vector of a condition instead of a token, as in
    UnlearnDiffAtk (Zhang et al., 2023) without its discrete prefixes.

    Args:
        generate: The generator under attack.
        loss: A scalar loss of a vector, for example the denoising loss of images of the class under it. The
            weights should not require gradients.
        starts: The embeddings to start at; the settings of the result are their positions in this list.
        hit: Decides which images show the class.
        seeds: The seeds of the images.
        guidance: The guidance of the sampler.
        steps: The steps of Adam from each start.
        lr: The learning rate of Adam.
    """
    vectors = {float(i): minimise(loss, start, steps=steps, lr=lr) for i, start in enumerate(starts)}
    return best_setting(
        {i: partial(generate, vector, guidance=guidance) for i, vector in vectors.items()}, hit, seeds
    )


def minimise(loss: Callable[[Tensor], Tensor], start: Vector, *, steps: int, lr: float) -> Vector:
    """Minimises a loss of a vector by Adam.

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

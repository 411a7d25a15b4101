"""Conjugate gradients over weights (Hestenes & Stiefel, 1952): equations whose matrix only multiplies."""

import math
from collections.abc import Callable

from unweave.weights.params import Params, add, dot, scale

EXACT = 1e-10
"""They end where this is left of the equation, relative to its right side."""


def conjugate_gradients(
    times: Callable[[Params], Params], wanted: Params, iterations: int
) -> tuple[Params, list[float]]:
    """The solution x of `times(x) = wanted`, from zero; they stop where the curvature is not positive.

    Args:
        times: A symmetric matrix's product with a vector.
        wanted: The right side.
        iterations: At most so many products.

    Returns:
        What was found, and after each iteration what was left of the right side, relative to it.
    """
    x, rest, direction = scale(wanted, 0.0), wanted, wanted
    start = size = float(dot(wanted, wanted))
    left: list[float] = []
    for _ in range(iterations):
        if size <= EXACT**2 * start:
            break
        product = times(direction)
        bend = float(dot(direction, product))
        if not bend > 0:
            break
        step = size / bend
        x, rest = add(x, direction, scale=step), add(rest, product, scale=-step)
        size, before = float(dot(rest, rest)), size
        direction = add(rest, direction, scale=size / before)
        left.append(math.sqrt(size / start))
    return x, left

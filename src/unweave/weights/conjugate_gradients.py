"""Conjugate gradients over weights (Hestenes & Stiefel, 1952): solves A x = b from products with A alone."""

import math
from collections.abc import Callable

from unweave.weights.params import Params, add, dot, scale

EXACT = 1e-10
"""Relative residual at which the iteration stops."""


def conjugate_gradients(
    times: Callable[[Params], Params], right_side: Params, iterations: int
) -> tuple[Params, list[float]]:
    """Solves `times(x) = wanted` for x, starting at zero; stops where the curvature is not positive.

    Args:
        times: Multiplies a vector by the symmetric matrix.
        right_side: The right side.
        iterations: The largest number of products.

    Returns:
        The solution, and the norm of the residual after each iteration, relative to that of the right side.
    """
    x, residual, direction = scale(right_side, 0.0), right_side, right_side
    start = size = float(dot(right_side, right_side))
    residuals: list[float] = []
    for _ in range(iterations):
        if size <= EXACT**2 * start:
            break
        product = times(direction)
        bend = float(dot(direction, product))
        if not bend > 0:
            break
        step = size / bend
        x, residual = add(x, direction, scale=step), add(residual, product, scale=-step)
        size, old_size = float(dot(residual, residual)), size
        direction = add(residual, direction, scale=size / old_size)
        residuals.append(math.sqrt(size / start))
    return x, residuals

"""Attacks on the vector of a condition: points of a line between two embeddings, and optimisation."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Vector = Float[Tensor, "..."]  # of any shape

POSITIONS = (1.0, 0.75, 1.25, 0.5, 1.5, 0.25, 2.0)
"""Positions from the class itself outwards: ties go to the first."""


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

"""The curvature of a loss: its largest, and that along its gradient."""

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.descent.hessian import allow_second_derivatives, differentiate_twice
from unweave.descent.objective import Objective
from unweave.problem import Problem
from unweave.weights.params import add, norm, scale
from unweave.weights.step import Step

REACH = 1e-2
"""Step of the difference of gradients, relative to the weights; large enough for bf16 passes."""


def curvature_along(step: Step, objective: Objective) -> Float[Tensor, ""]:
    r"""The size of :math:`H g / \|g\|`, with g the objective's gradient at the step and H its Hessian.

    It is a difference of two gradients, so the model need not be differentiable twice. It lies between the
    curvature along g and the largest curvature, and is zero if g is. BatchNorm's running statistics stay
    unchanged.

    Args:
        step: The weights and batches.
        objective: The loss.
    """
    with step.runtime.keep_statistics():
        g = step.gradient(objective)
        size = float(norm(g))
        if not size:
            return norm(g)
        reach = REACH * float(norm({name: p.detach() for name, p in step.params.items()})) / size
        with step.at(g, -reach) as ahead:
            return norm(add(ahead.gradient(objective), g, scale=-1.0)) / (reach * size)


def top_eigenvalue(
    problem: Problem, objective: Objective, step: Step, *, iterations: int = 8
) -> Float[Tensor, ""]:
    r"""The size of the largest eigenvalue of the objective's Hessian at the step, by power iteration.

    It is :math:`\|H v\|` for the last unit direction, a lower bound that does not cancel if eigenvalues of
    both signs are large, as :math:`v^T H v` does. BatchNorm's running statistics stay unchanged.

    Args:
        problem: Its generator draws the first direction.
        objective: The loss.
        step: The weights and batches; gradients of the model must be differentiable twice.
        iterations: Hessian-vector products; each costs about two gradient evaluations and is counted as two.
    """
    v = {
        name: torch.randn(p.shape, generator=problem.generator, dtype=p.dtype).to(p.device)
        for name, p in step.params.items()
    }
    size = norm(v)
    with allow_second_derivatives(), step.runtime.keep_statistics():
        hessian = differentiate_twice(step, objective, keep=True)
        for _ in range(iterations):
            v = hessian(scale(v, 1 / float(size)))
            size = norm(v)
            step.runtime.cost.gradients += 2
            if not bool(size > 0):
                break
    return size

"""Step sizes and weights measured at the first step of a descent, so that they need no search.

LUR(alpha=Along(0.1), weight=Ratio(0.3))
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.batches import step_batches
from unweave.descent.descend import Descent, Phase, make_runtime, training_mode
from unweave.descent.hessian import allow_second_derivatives, differentiate_twice
from unweave.descent.importance import Mask
from unweave.descent.objective import Objective
from unweave.problem import Problem
from unweave.weights.params import Params, norm, scale
from unweave.weights.step import Step, Term

ROUNDING = 1e-6
"""A gradient this small relative to another counts as zero, as that of a divergence from itself."""

REACH = 1e-2
"""Step of the difference of gradients, relative to the weights; large enough for bf16 passes."""

SAFE = 0.7
"""Mode "lagged" is allowed up to this share of the largest alpha at which it converges."""


@dataclass(frozen=True)
class Along:
    r"""A step size of `times` :math:`\|g\| / \|H g\|`: one over the curvature along the retain gradient g.

    Args:
        times: The multiple. With 1, a step along g ends near the minimum of the quadratic model.
    """

    times: float = 0.1

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "times")

    def __call__(self, problem: Problem, step: Step, retain: Objective) -> float:
        """The absolute step size; takes one gradient evaluation more than the gradient itself."""
        return self.times / nonzero(float(curvature_along(step, retain)))


@dataclass(frozen=True)
class Curvature:
    """A step size of `times` one over the top eigenvalue of the retain loss's Hessian.

    Args:
        times: The multiple.
    """

    times: float = 0.1

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "times")

    def __call__(self, problem: Problem, step: Step, retain: Objective) -> float:
        """The absolute step size; takes eight Hessian products, counted as two gradient evaluations each."""
        return self.times / nonzero(float(top_eigenvalue(problem, retain, step)))


@dataclass(frozen=True)
class Ratio:
    """A weight with which the forget gradient is at first `times` as long as the retain gradient.

    Args:
        times: The ratio of the two norms.
    """

    times: float = 0.3

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "times")

    def __call__(self, step: Step, retain: Objective, forget: Objective) -> float:
        """The absolute weight.

        Raises:
            ValueError: If one of the gradients is zero, or as small as rounding errors of the other.
        """
        with step.runtime.keep_statistics():
            pull, push = (float(norm(step.gradient(each))) for each in (retain, forget))
        if min(pull, push) <= ROUNDING * max(pull, push):
            raise ValueError(
                f"a Ratio needs two gradients that are not zero, found norms {pull:g} (retain) and {push:g} "
                "(forget): give the weight as a number"
            )
        return self.times * pull / push


def measure_units(
    problem: Problem,
    how: Descent,
    where: Mask | None,
    retain: Objective,
    forget: Objective,
    *,
    weight: float | Ratio,
    alpha: float | Along | Curvature,
    mode: str,
) -> tuple[float, float]:
    """The weight and alpha, measured on the first batches; checks that mode "lagged" converges with them."""
    alpha = 0.0 if mode == "joint" else alpha
    if isinstance(weight, int | float) and isinstance(alpha, int | float) and mode != "lagged":
        return weight, alpha
    with training_mode(problem.model, how):
        step = first_step(problem, how, where, retain, forget)
        weight = weight(step, retain, forget) if isinstance(weight, Ratio) else weight
        alpha = alpha if isinstance(alpha, int | float) else alpha(problem, step, retain)
        if mode == "lagged":
            refuse_divergence(step, retain, forget, weight, alpha)
    return weight, alpha


def nonzero(curvature: float) -> float:
    """The curvature, if a step size can be measured in it."""
    if not curvature:
        raise ValueError("the retain loss has no curvature here to measure alpha in: give it as a number")
    return curvature


def first_step(problem: Problem, how: Descent, where: Mask | None, *terms: Term) -> Step:
    """A step at the present weights on the first batches, in training mode; it remembers its gradients."""
    batches, sizes = next(step_batches(problem, Phase(terms), how))
    step = Step(problem.params, make_runtime(problem, how, where), batches, sizes)
    step.runtime.noise = problem.seed() if how.dropout == "same" else None
    return step


DIVERGENCE_GRADIENTS = 4
"""The gradient evaluations that `refuse_divergence` takes."""


def refuse_divergence(step: Step, retain: Term, forget: Term, weight: float, alpha: float) -> None:
    r"""Raises if mode "lagged" would not converge with this alpha.

    It iterates :math:`A \mapsto \nabla R(\theta - \alpha \nabla U(\theta - \alpha A))`, which shrinks
    differences by :math:`\alpha^2 H_r H_u`. That product is measured along the retain gradient, by two
    gradient evaluations more than the gradients themselves.

    Raises:
        ValueError: Names the largest alpha at which it converges along that direction.
    """
    with step.runtime.keep_statistics():
        g_r = step.gradient(retain)
        forget_change = change_ahead(step, forget, g_r, -alpha)
        step.free_gradients([retain])
        retain_change = change_ahead(step, retain, forget_change, weight * alpha)
    growth = float(norm(retain_change) / norm(g_r))
    if growth > SAFE**2:
        raise ValueError(
            f"mode 'lagged' converges below alpha {alpha / math.sqrt(growth):.3g} here and is used below "
            f"{SAFE} of that, found {alpha:.3g}: lower alpha, or use mode 'nested'"
        )


def change_ahead(step: Step, term: Term, direction: Params, size: float) -> Params:
    """How much the gradient of a term changes from the step's weights to `weights + size * direction`."""
    gradient = step.gradient(term)
    with step.at(direction, size) as shifted_step:
        change = dict(shifted_step.gradient(term))
    del shifted_step  # it holds the gradient as well
    for name, g in gradient.items():  # one by one: otherwise two more copies of a large model
        change[name] = change[name] - g
    return change


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
        return norm(change_ahead(step, objective, g, -reach)) / (reach * size)


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

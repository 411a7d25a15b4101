r"""Influence unlearning (Koh & Liang, ICML 2017), https://arxiv.org/abs/1703.04730.

As Jia et al. (NeurIPS 2023, https://arxiv.org/abs/2304.04934) use it for classifiers, with the Hessian
instead of their WoodFisher recursion, which never leaves the line through one example's gradient.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from unweave.choices import refuse_outside
from unweave.descent.edit import shift
from unweave.descent.hessian import allow_second_derivatives, differentiate_twice
from unweave.descent.importance import accumulate, steps
from unweave.descent.objective import nll
from unweave.errors import Failed
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range, Whole
from unweave.split import Part
from unweave.tasks import evaluating
from unweave.weights.conjugate_gradients import conjugate_gradients
from unweave.weights.params import Params, add, norm, scale

__all__ = ["Influence"]


@dataclass(frozen=True)
class Influence:
    r"""One Newton step from the optimum of all data towards that of the retain data; trains nothing.

    .. math:: \theta \leftarrow \theta + \alpha (H_r + \lambda)^{-1} v, \quad
        v = \frac{n_f}{n_f + n_r} (\bar g_f - \bar g_r)

    with the mean gradients of both sets and the Hessian of the retain loss. v is the mean gradient over all
    data minus that over the retain set. So a remaining gradient of the original is kept, weight decay as
    strong as the damping cancels out, and on a quadratic loss alpha = 1 equals retraining. Gradients are
    computed in evaluation mode and without augmentation.

    The equation is solved by conjugate gradients. A network's Hessian has negative eigenvalues: at a
    direction of negative curvature that the damping does not lift, the iterations stop, as in a truncated
    Newton method.

    Args:
        alpha: The size of the step, relative to Newton's.
        damping: The constant lambda, added to the Hessian's diagonal.
        iterations: The most iterations of conjugate gradients.
        batches: The largest number of retain batches for the Hessian.
        batch: The largest batch.
    """

    about: ClassVar[About] = About(
        "Koh & Liang, ICML 2017, arXiv 1703.04730",
        "forget, retain",
        "no steps; 1 pass over forget and 1 over retain; 2 gradients an iteration and batch of the Hessian",
        "conjugate gradients with the damped Hessian over some of the retain data, not a WoodFisher "
        "recursion over single examples as in Jia et al., 2023; alpha, damping and iterations are ours",
        families=("classifier",),
        edits="moves the weights by a Newton step",
    )
    alpha: float = 1.0
    damping: float = 0.01
    iterations: int = 20
    batches: int = 8
    batch: int = 128

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "alpha")
        refuse_outside(self, "[0, inf)", "damping")
        refuse_outside(self, "[1, inf)", "iterations", "batches", "batch")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; the two passes cost the same, whatever the budget."""
        return {
            "alpha": Log(0.1, 20.0),
            "damping": Log(1e-4, 1.0),
            "iterations": Whole(1, max(1, min(50, budget // (2 * self.batches)))),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            Failed: If a gradient is not finite, or the first direction has no positive curvature.
        """
        refuse_family(self, problem.task)
        v = self.removal_gradient(problem)
        with evaluating(problem.model), allow_second_derivatives():
            shift(
                problem, scale(solve_system(problem, self.curvature(problem), v, self.iterations), self.alpha)
            )

    def removal_gradient(self, problem: Problem) -> Params:
        """The mean gradient over all data minus that over the retain set, v."""
        forget, retain = len(problem.split.forget), len(problem.split.retain)
        gradient_difference = add(
            self.mean_gradient(problem, "forget"), self.mean_gradient(problem, "retain"), scale=-1
        )
        v = scale(gradient_difference, forget / (forget + retain))
        if not bool(norm(v).isfinite()):
            raise Failed("a mean gradient is no longer finite: the model or its loss is not")
        return v

    def mean_gradient(self, problem: Problem, part: Part) -> Params:
        """The mean gradient over a part; a smaller last batch has less weight."""
        objective, n = nll(part), len(problem.split.part(part)[1])
        batch_steps = steps(problem, part, batch=self.batch)
        shares = (scale(step.gradient(objective), step.sizes[part] / n) for step in batch_steps)
        return accumulate(shares, lambda g: g)[0]

    def curvature(self, problem: Problem) -> Callable[[Params], Params]:
        """Multiplies by the damped Hessian of the retain loss, over the same examples each time."""
        hessian_steps = list(steps(problem, "retain", batch=self.batch, batches=self.batches))
        objective, n = nll("retain"), sum(step.sizes["retain"] for step in hessian_steps)

        def times(x: Params) -> Params:
            product = scale(x, self.damping)
            for step in hessian_steps:
                hessian_product = differentiate_twice(step, objective)(x)
                product = add(product, hessian_product, scale=step.sizes["retain"] / n)
                step.runtime.cost.gradients += 1
                step.runtime.losses.clear()
            return product

        return times


def solve_system(problem: Problem, matrix: Callable[[Params], Params], v: Params, iterations: int) -> Params:
    """Solves A x = v by conjugate gradients; traces the residual as "residual".

    Raises:
        Failed: If the matrix has no positive curvature along v itself.
    """
    x, residuals = conjugate_gradients(matrix, v, iterations)
    if not residuals and bool(norm(v) > 0):
        raise Failed(
            "the damped Hessian has negative curvature along the gradient, so there is no Newton step: use "
            "a larger damping"
        )
    problem.traces["residual"] = [(index, size, math.nan) for index, size in enumerate(residuals)]
    return x

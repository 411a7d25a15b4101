"""Terms whose gradient is taken at other weights or at other steps.

The gradient of an outer objective, taken one gradient step of an inner objective ahead,

    L_o(theta - lr g_i) = L_o(theta) - lr <g_o, g_i> + O(lr^2),

also aligns the two gradients. This term is the whole of LUR; it combines with any rule, mask and optimizer.
"""

from dataclasses import dataclass
from typing import Literal

from unweave.descent.hessian import allow_second_derivatives, differentiate_twice
from unweave.descent.objective import Objective
from unweave.split import Part
from unweave.weights.params import Params, add, norm
from unweave.weights.step import Step, Term

__all__ = ["Lookahead"]


@dataclass(frozen=True, eq=False)
class Lookahead:
    r"""The gradient of `outer`, one gradient step of `through` ahead.

    :math:`\nabla L_o(\theta - \mathrm{lr} \cdot g)`, with :math:`g` the gradient of `through`; with
    `hessian="exact"` it is multiplied by :math:`I - \mathrm{lr} \cdot H`, :math:`H` the Hessian of
    `through` at :math:`\theta`, and so becomes the gradient of :math:`L_o(\theta - \mathrm{lr} \nabla
    L_i(\theta))`. On ReLU networks that is the almost-everywhere Hessian.

    Args:
        outer: The term whose gradient is taken after the step.
        through: The term of the step: its plain gradient, no momentum, no weight decay. At a step without its
            data, the gradient of `outer` is taken at the present weights.
        lr: The size of the step.
        hessian: "exact" multiplies by the Hessian factor, by double backward.
    """

    outer: Term
    through: Term
    lr: float
    hessian: Literal["exact"] | None = None

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that the term needs."""
        return self.outer.parts | self.through.parts

    def present(self, step: Step) -> bool:
        """Whether the step has data for `outer`."""
        return self.outer.present(step)

    def gradient(self, step: Step) -> Params:
        """The gradient of `outer` at the shifted weights."""
        for term in (self.outer, self.through):
            if isinstance(term, Objective) and term.follows_weights:
                raise ValueError(
                    f"the target of {term.name} changes with the weights, so a lookahead of it follows "
                    "nothing: use a frozen teacher, or mode 'joint'"
                )
        if not self.through.present(step):
            return step.gradient(self.outer)
        if self.hessian == "exact":
            return self._exact(step)
        with step.at(step.gradient(self.through), -self.lr) as shifted_step:
            return shifted_step.gradient(self.outer)

    def _exact(self, step: Step) -> Params:
        if not isinstance(self.through, Objective):
            raise ValueError(
                "hessian='exact' differentiates an objective twice; `through` is another lookahead"
            )
        if step.runtime.noise is not None:
            raise ValueError(
                "mode 'exact' needs a model without dropout: use dropout='off', or mode 'nested'"
            )
        with allow_second_derivatives():
            hessian = differentiate_twice(step, self.through)
            with step.at_copy(step.gradient(self.through), -self.lr) as shifted_step:
                gradient = shifted_step.gradient(self.outer)
            return add(gradient, hessian(gradient), scale=-self.lr)


def through_steps(
    outer: Term, through: Term, lr: float, steps: int, *, hessian: Literal["exact"] | None = None
) -> Term:
    """The gradient of `outer` several gradient steps of `through` ahead; the arguments of `Lookahead`."""
    for _ in range(steps):
        outer = Lookahead(outer, through, lr, hessian)
    return outer


class PreviousGradient:
    """The gradient of a term at the previous step; at the first step the gradient of another term.

    Create it before the term that it refers to, so that the two can refer to each other:

        previous = PreviousGradient(first=retain)
        previous.follow(Lookahead(retain, through=Lookahead(forget, through=previous, lr=a), lr=a))

    Args:
        first: The term whose gradient to use at the first step.
    """

    def __init__(self, first: Term) -> None:
        self.first, self.term = first, first

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that the first step needs."""
        return self.first.parts

    def follow(self, term: Term) -> None:
        """Sets the term whose gradient to remember."""
        self.term = term

    def present(self, step: Step) -> bool:
        """Whether a remembered gradient or the data of `first` is available."""
        return id(self.term) in step.before or self.first.present(step)

    def gradient(self, step: Step) -> Params:
        """The remembered gradient."""
        step.runtime.lagged_terms.add(id(self.term))
        return step.before[id(self.term)] if id(self.term) in step.before else step.gradient(self.first)


@dataclass(frozen=True, eq=False)
class EveryNthStep:
    """A term that takes part in every `n`-th step only; optionally clipped on its own.

    Args:
        term: The term.
        n: The number of steps from one use to the next.
        clip: The largest norm of its gradient; no limit if None.
    """

    term: Term
    n: int
    clip: float | None = None

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that the term needs."""
        return self.term.parts

    def present(self, step: Step) -> bool:
        """Whether this is an `n`-th step."""
        return step.index % self.n == 0 and self.term.present(step)

    def gradient(self, step: Step) -> Params:
        """The gradient, clipped."""
        gradient = step.gradient(self.term)
        if self.clip is None:
            return gradient
        return {name: g * (self.clip / norm(gradient)).clamp(max=1) for name, g in gradient.items()}


@dataclass(frozen=True, eq=False)
class ReusedGradient:
    """A gradient that is computed every few steps and reused in between.

    Args:
        term: The term.
        every: The number of steps for which a gradient is reused.
    """

    term: Term
    every: int

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that the term needs."""
        return self.term.parts

    def present(self, step: Step) -> bool:
        """Whether the step has the data of the term, although a reused gradient does not need it."""
        return self.term.present(step)

    def gradient(self, step: Step) -> Params:
        """The gradient, computed again if it is due."""
        if step.index % self.every == 0 or id(self) not in step.runtime.reused_gradients:
            step.runtime.reused_gradients[id(self)] = step.gradient(self.term)
        return step.runtime.reused_gradients[id(self)]


def nested(retain: Term, forget: Term, alpha: float) -> list[Term]:
    r"""The terms of LUR without a second derivative: three gradients a step.

    :math:`V = \nabla U(\theta - \alpha g_r)`, and :math:`\nabla R(\theta - \alpha V) + V` is the gradient of
    :math:`R(\theta) + U(\theta - \alpha \nabla R(\theta))` up to :math:`\frac{\alpha^2}{2} D^3 R[V, V]`.
    """
    # gradient 1: retain at theta; 2 (V): forget at theta - alpha * 1; 3: retain at theta - alpha * V
    forget_ahead = Lookahead(forget, through=retain, lr=alpha)
    return [Lookahead(retain, through=forget_ahead, lr=alpha), forget_ahead]


def lagged(retain: Term, forget: Term, alpha: float) -> list[Term]:
    """The terms of LUR at two gradients a step: the first of `nested` is the third of the previous step."""
    previous = PreviousGradient(first=retain)
    forget_ahead = Lookahead(forget, through=previous, lr=alpha)
    retain_ahead = Lookahead(retain, through=forget_ahead, lr=alpha)
    previous.follow(retain_ahead)
    return [retain_ahead, forget_ahead]


def exact(
    retain: Objective, forget: Term, alpha: float, *, hessian: Literal["exact"] | None = "exact"
) -> list[Term]:
    """The terms of LUR by double backward; `hessian=None` is the first-order ablation."""
    return [retain, Lookahead(forget, through=retain, lr=alpha, hessian=hessian)]

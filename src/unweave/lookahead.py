"""Terms that look at another place or time: ahead, before, now and then.

Following an outer objective one gradient step of an inner one ahead,

    L_o(theta - lr g_i) = L_o(theta) - lr <g_o, g_i> + O(lr^2),

also aligns the two gradients. That is all there is to LUR: a term, which composes with any rule, mask and
optimizer.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unweave.objective import Objective
from unweave.params import Params, add, sharded
from unweave.problem import Part
from unweave.step import Runtime, Step, Term


@dataclass(frozen=True, eq=False)
class Lookahead:
    r"""The gradient of `outer`, one step of `through` ahead.

    :math:`\nabla L_o(\theta - \mathrm{lr} \cdot g)`, with :math:`g` the gradient of `through`; with
    `hessian="exact"` it is multiplied by :math:`I - \mathrm{lr} \cdot H`, :math:`H` the Hessian of
    `through` at :math:`\theta`, and so becomes the gradient of :math:`L_o(\theta - \mathrm{lr} \nabla
    L_i(\theta))`. On ReLU networks that is the almost-everywhere Hessian.

    Args:
        outer: The term evaluated after the step.
        through: The term stepped on: plain gradient, no momentum, no weight decay. Where its data is
            absent, `outer` is taken where the weights are.
        lr: The size of the step.
        hessian: Whether to multiply by the Hessian factor, by double backward.
    """

    outer: Term
    through: Term
    lr: float
    hessian: Literal["exact"] | None = None

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that it needs."""
        return self.outer.parts | self.through.parts

    def present(self, step: Step) -> bool:
        """Whether the step has data for `outer`."""
        return self.outer.present(step)

    def gradient(self, step: Step) -> Params:
        """The gradient of `outer` at the shifted weights."""
        for term in (self.outer, self.through):
            if isinstance(term, Objective) and term.moving:
                raise ValueError(
                    f"the target of {term.name} moves with the weights, so a lookahead of it follows "
                    "nothing: use a frozen teacher, or mode 'joint'"
                )
        if not self.through.present(step):
            return step.gradient(self.outer)
        if self.hessian == "exact":
            return self._exact(step)
        with step.at(step.gradient(self.through), -self.lr) as ahead:
            return ahead.gradient(self.outer)

    def _exact(self, step: Step) -> Params:
        if not isinstance(self.through, Objective):
            raise ValueError(
                "hessian='exact' differentiates an objective twice; `through` is another lookahead"
            )
        if step.runtime.noise is not None:
            raise ValueError(
                "mode 'exact' needs a model without dropout: use dropout='off', or mode 'nested'"
            )
        with twice_differentiable():
            hessian = differentiate_twice(step, self.through)
            with step.beside(step.gradient(self.through), -self.lr) as ahead:
                gradient = ahead.gradient(self.outer)
            return add(gradient, hessian(gradient), scale=-self.lr)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention that has a second derivative, and errors that say so where something else has none.

    Raises:
        ValueError: If an operation of the model has no second derivative.
    """
    known = (
        "derivative for",
        "double backward",
        "higher-order",
        "differentiate twice",
        "not compatible with .grad()",
    )
    try:
        with sdpa_kernel(SDPBackend.MATH):  # flash and memory-efficient attention have none
            yield
    except RuntimeError as error:
        if not any(text in str(error) for text in known):
            raise
        raise ValueError(
            "second derivatives are needed by mode 'exact' and by the curvature that mode 'lagged' and "
            f"alpha_in='curvature' measure, and this model lacks them ({error}): use mode 'nested'"
        ) from error


def differentiate_twice(
    step: Step, objective: Objective, *, keep: bool = False
) -> Callable[[Params], Params]:
    """Multiplies by the Hessian of an objective; its gradient is deposited in the step on the way.

    Args:
        step: Where the gradient is taken.
        objective: The loss.
        keep: Whether the graph is kept, so that there may be more than one product.

    Raises:
        ValueError: If the model is no function of its weights and inputs (active dropout), its passes are
            compiled, or its weights are sharded.
    """
    if any(map(sharded, step.params.values())):
        raise ValueError(
            "second derivatives (mode 'exact', measured curvature) need whole weights, found sharded ones: "
            "use mode 'nested'"
        )
    if step.runtime.compile:
        raise ValueError(
            "second derivatives (mode 'exact') need passes that are not compiled: "
            "set compile = false, or use mode 'nested'"
        )
    if step.index == 0:
        check_deterministic(step, objective)
    weights = list(step.params.values())
    losses = list(objective.losses(step))
    step.forget_outputs()
    # none where this process has no example of an uneven batch
    graph = (
        torch.autograd.grad(losses, weights, create_graph=True, allow_unused=True)
        if losses
        else [None] * len(weights)
    )
    local = dict(zip(step.params, graph, strict=True))
    step.deposit(
        objective, step.leave({name: None if g is None else g.detach() for name, g in local.items()})
    )
    used = {name: g for name, g in local.items() if g is not None and g.requires_grad}

    def times(vector: Params) -> Params:
        outer = [vector[name] for name in used]
        product = torch.autograd.grad(
            list(used.values()), weights, outer, retain_graph=keep, allow_unused=True
        )
        return step.leave(dict(zip(step.params, product, strict=True)), check=False)

    return times


def check_deterministic(step: Step, objective: Objective) -> None:
    """Raises if two passes over the same batches differ."""
    counted = step.runtime.cost.gradients, step.runtime.cost.examples, len(step.runtime.losses)
    with torch.no_grad():
        first, second = ([loss.clone() for loss in step.afresh(objective.losses(step))] for _ in range(2))
    step.runtime.cost.gradients, step.runtime.cost.examples = counted[:2]
    del step.runtime.losses[counted[2] :]
    if not all(
        torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(first, second, strict=True)
    ):
        raise ValueError(
            "second derivatives (mode 'exact', measured curvature) need a model that answers the same twice; "
            "found dropout or other noise: switch it off, or use mode 'nested'"
        )


class Previous:
    """The gradient that a term had at the end of the step before; at the first step that of another.

    It is made before the term it follows, so that the two may refer to each other:

        previous = Previous(first=retain)
        previous.follow(Lookahead(retain, through=Lookahead(forget, through=previous, lr=a), lr=a))

    Args:
        first: What to take at the first step.
    """

    def __init__(self, first: Term) -> None:
        self.first, self.term = first, first

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that the first step needs."""
        return self.first.parts

    def follow(self, term: Term) -> None:
        """Names the term whose gradient is remembered."""
        self.term = term

    def present(self, step: Step) -> bool:
        """Whether there is a gradient to give."""
        return id(self.term) in step.before or self.first.present(step)

    def gradient(self, step: Step) -> Params:
        """The remembered gradient."""
        step.runtime.carried.add(id(self.term))
        return step.before[id(self.term)] if id(self.term) in step.before else step.gradient(self.first)


@dataclass(frozen=True, eq=False)
class Held:
    """A gradient taken now and then, and held between.

    Args:
        term: The term.
        every: The number of steps for which a gradient is held.
    """

    term: Term
    every: int

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that it needs."""
        return self.term.parts

    def present(self, step: Step) -> bool:
        """Whether the step has the data of the term, though a held gradient does not need it."""
        return self.term.present(step)

    def gradient(self, step: Step) -> Params:
        """The held gradient."""
        if step.index % self.every == 0 or id(self) not in step.runtime.held:
            step.runtime.held[id(self)] = step.gradient(self.term)
        return step.runtime.held[id(self)]


@dataclass(frozen=True, eq=False)
class Closure:
    """A user's own loss, called with no arguments.

    Args:
        name: What errors call it.
        value: The loss; runs forward, must not call backward.
        weight: Its weight.
    """

    name: str
    value: Callable[[], Tensor]
    weight: float = 1.0

    @property
    def parts(self) -> frozenset[Part]:
        """None that unweave knows of."""
        return frozenset()

    def present(self, step: Step) -> bool:
        """Always."""
        return True

    def gradient(self, step: Step) -> Params:
        """The gradient of the weighted loss."""
        step.count(0)
        gradient = step.backward(iter([self.weight * self.value()]))
        # a view of a bucket of DistributedDataParallel is overwritten by the next backward pass
        return {name: g.clone() if g._is_view() else g for name, g in gradient.items()}


def nested(retain: Term, forget: Term, alpha: float) -> list[Term]:
    r"""LUR without a second derivative: three gradients a step.

    :math:`V = \nabla U(\theta - \alpha g_r)`, and :math:`\nabla R(\theta - \alpha V) + V` is the gradient of
    :math:`R(\theta) + U(\theta - \alpha \nabla R(\theta))` up to :math:`\frac{\alpha^2}{2} D^3 R[V, V]`.
    """
    ahead = Lookahead(forget, through=retain, lr=alpha)
    return [Lookahead(retain, through=ahead, lr=alpha), ahead]


def lagged(retain: Term, forget: Term, alpha: float) -> list[Term]:
    """The same at two gradients a step: the inner retain gradient is what the step before ended with."""
    previous = Previous(first=retain)
    ahead = Lookahead(forget, through=previous, lr=alpha)
    row = Lookahead(retain, through=ahead, lr=alpha)
    previous.follow(row)
    return [row, ahead]


def exact(
    retain: Objective, forget: Term, alpha: float, *, hessian: Literal["exact"] | None = "exact"
) -> list[Term]:
    """LUR by double backward; without the Hessian the first-order ablation, half of the alignment."""
    return [retain, Lookahead(forget, through=retain, lr=alpha, hessian=hessian)]


def lur_backward(
    retain_loss: Callable[[], Tensor],
    forget_loss: Callable[[], Tensor],
    params: Iterable[nn.Parameter],
    *,
    alpha: float = 0.1,
    weight: float = 0.3,
) -> None:
    """Adds the LUR gradient (mode `nested`) to the `grad` of the weights, in the place of `loss.backward()`.

    Each closure runs a forward pass and returns its loss; the retain closure is called twice, at different
    weights. Use the same batch within one call, and freeze BatchNorm or accept that its running statistics
    see two passes over the retain batch.

    Args:
        retain_loss: The loss on data to keep.
        forget_loss: The loss to descend on data to forget, for example `-log(1 + CE)`.
        params: The weights that move.
        alpha: The size of the inner step.
        weight: The weight of the forget loss.

    Raises:
        ValueError: If a weight is bf16 or fp16, or takes no part in a loss.
    """
    named = {str(i): p for i, p in enumerate(p for p in params if p.requires_grad)}
    if not named:
        raise ValueError("lur_backward got no trainable weights")
    before = [(p, p.grad) for p in named.values()]
    step = Step(named, Runtime(nn.Identity(), family=None), {}, {})
    row, ahead = nested(Closure("retain", retain_loss), Closure("forget", forget_loss, weight), alpha)
    try:
        total = add(step.gradient(row), step.gradient(ahead))
    finally:
        for p, old in before:
            p.grad = old
    for name, p in named.items():
        if p.grad is None:
            p.grad = total[name]
        else:
            p.grad.add_(total[name])

"""LUR in your own training loop, instead of `loss.backward()`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from unweave.descent.lookahead import nested
from unweave.split import Part
from unweave.weights.params import Params, add
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

__all__ = ["lur_backward"]


def lur_backward(
    retain_loss: Callable[[], Tensor],
    forget_loss: Callable[[], Tensor],
    params: Iterable[nn.Parameter],
    *,
    alpha: float = 0.1,
    weight: float = 0.3,
) -> None:
    """Adds the LUR gradient (mode `nested`) to the `grad` of the weights; replaces `loss.backward()`.

    Each closure runs a forward pass and returns its loss; the retain closure is called twice, at different
    weights. Use the same batch within one call, and freeze BatchNorm or accept that its running statistics
    see two passes over the retain batch.

    Args:
        retain_loss: Computes the loss on retain data.
        forget_loss: Computes the loss to minimise on forget data, for example `-log(1 + CE)`.
        params: The weights to train.
        alpha: The size of the virtual retain step.
        weight: The weight of the forget loss.

    Raises:
        ValueError: If a weight is bf16 or fp16, or a loss does not depend on it.
    """
    weights = {str(i): p for i, p in enumerate(p for p in params if p.requires_grad)}
    if not weights:
        raise ValueError("lur_backward got no trainable weights")
    old_gradients = [(p, p.grad) for p in weights.values()]
    step = Step(weights, Runtime(nn.Identity(), scorer=None), {}, {})
    retain_ahead, forget_ahead = nested(
        Closure("retain", retain_loss), Closure("forget", forget_loss, weight), alpha
    )
    try:
        total = add(step.gradient(retain_ahead), step.gradient(forget_ahead))
    finally:
        for p, old in old_gradients:
            p.grad = old
    for name, p in weights.items():
        if p.grad is None:
            p.grad = total[name]
        else:
            p.grad.add_(total[name])


@dataclass(frozen=True, eq=False)
class Closure:
    """A user's own loss, called with no arguments.

    Args:
        name: Its name in errors.
        value: Computes the loss; must not call backward.
        weight: Its weight.
    """

    name: str
    value: Callable[[], Tensor]
    weight: float = 1.0

    @property
    def parts(self) -> frozenset[Part]:
        """Empty: the closure brings its own data."""
        return frozenset()

    def present(self, step: Step) -> bool:
        """Always true."""
        return True

    def gradient(self, step: Step) -> Params:
        """The gradient of the weighted loss."""
        step.count(0)
        gradient = step.backward(iter([self.weight * self.value()]))
        # a view of a bucket of DistributedDataParallel is overwritten by the next backward pass
        return {name: g.clone() if g._is_view() else g for name, g in gradient.items()}

"""SGD with the bits of torch's in fewer calls: the update of a small model takes two thirds of the time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unweave.weights.sharded import as_sharded, pieces

BUFFER = "momentum_buffer"
"""The key of the momentum in the state of a weight, as in `torch.optim.SGD`."""


class SGD(torch.optim.SGD):
    """`torch.optim.SGD` without dampening, Nesterov's step and closures."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Updates every weight that has a gradient.

        Raises:
            ValueError: If there is a closure.
        """
        if closure is not None:
            raise ValueError("this optimizer takes no closure: compute the gradient before step()")
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self.update(weights, group)

    def update(self, weights: Sequence[nn.Parameter], group: dict[str, Any]) -> None:
        """Updates the weights of a group, in place."""
        local, slopes = pieces(weights), pieces(p.grad for p in weights if p.grad is not None)
        if group["weight_decay"] != 0:
            slopes = list(torch._foreach_add(slopes, local, alpha=group["weight_decay"]))
        if group["momentum"] != 0:
            slopes = self.update_momentum(weights, slopes, group["momentum"])
        torch._foreach_add_(local, slopes, alpha=-group["lr"])

    def update_momentum(
        self, weights: Sequence[nn.Parameter], slopes: list[Tensor], momentum: float
    ) -> list[Tensor]:
        """Updates the momentum of each weight, which begins as its first gradient, and returns it."""
        moving = [(p, slope) for p, slope in zip(weights, slopes, strict=True) if BUFFER in self.state[p]]
        if moving:
            buffers = pieces(self.state[p][BUFFER] for p, _ in moving)
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, [slope for _, slope in moving])
        for p, slope in zip(weights, slopes, strict=True):
            if BUFFER not in self.state[p]:
                self.state[p][BUFFER] = as_sharded(slope.clone(), p)
        return pieces(self.state[p][BUFFER] for p in weights)

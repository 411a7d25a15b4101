"""What a descent moves: the weights, the memory of their optimizer, and their average."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unweave.descent.importance import Mask
from unweave.weights.step import HALF


@dataclass(frozen=True)
class TrainState:
    """The weights, and what their next update depends on.

    Args:
        weights: The trainable weights by name.
        update: Their optimizer.
        average: Of the weights, from `start_average`; empty where none is taken.
    """

    weights: Mapping[str, nn.Parameter]
    update: torch.optim.Optimizer
    average: Mapping[str, Tensor]

    def follow_average(self, decay: float | None, before: int) -> None:
        """Moves the average towards the weights; less far the more steps lie before, down to the decay."""
        if decay is not None:
            share = 1 - min(decay, (1 + before) / (10 + before))
            weights = [p.detach().to(self.average[name].dtype) for name, p in self.weights.items()]
            torch._foreach_lerp_(list(self.average.values()), weights, share)

    @contextmanager
    def use_average(self) -> Iterator[None]:
        """The average, if there is one, in the place of the weights for the body."""
        own = {name: self.weights[name].detach().clone() for name in self.average}
        copy_into(self.average, self.weights)
        try:
            yield
        finally:
            copy_into(own, self.weights)

    def keep_average(self) -> None:
        """Puts the average, if there is one, in the place of the weights, and drops their gradients."""
        copy_into(self.average, self.weights)
        self.update.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """All but the weights."""
        return {"update": self.update.state_dict(), "average": dict(self.average)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` gave."""
        self.update.load_state_dict(state["update"])
        for name, mean in self.average.items():
            mean.copy_(state["average"][name])


def start_average(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """An average of the weights at its start, with digits enough for small moves."""
    wide = {name: torch.float32 if p.dtype in HALF else p.dtype for name, p in weights.items()}
    return {name: p.detach().to(wide[name], copy=True) for name, p in weights.items()}


@torch.no_grad()
def copy_into(values: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]) -> None:
    """Copies values into the weights of their names."""
    for name, value in values.items():
        weights[name].copy_(value)


class Pinned:
    """Weights that must end where they began: momentum and weight decay also move what has no gradient.

    Args:
        weights: All weights.
        where: The multiplier; weights at zero are pinned.

    Raises:
        ValueError: If it is not of these weights.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], where: Mask | None) -> None:
        if where is not None and where.keys() != weights.keys():
            strange = sorted(where.keys() ^ weights.keys())
            raise ValueError(
                f"a mask has one multiplier per trainable weight, by its name, found {len(where)} for "
                f"{len(weights)}: {strange[0]!r} is in one of the two alone"
            )
        masks = {} if where is None else {name: where[name] == 0 for name in weights}
        self.held = [
            (weights[name], mask, weights[name].detach().clone())
            for name, mask in masks.items()
            if bool(mask.any())
        ]

    def restore(self, update: torch.optim.Optimizer) -> None:
        """Puts the pinned weights back, and zeroes their optimizer state."""
        for p, mask, start in self.held:
            weights = p.detach()  # the same memory
            weights.copy_(torch.where(mask, start, weights))
            for state in update.state[p].values():
                if isinstance(state, Tensor) and state.shape == p.shape:
                    state.masked_fill_(mask, 0)

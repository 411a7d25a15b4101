"""What a descent updates: the weights, the state of their optimizer, and their average."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unweave.descent.importance import Mask
from unweave.weights.sharded import WHOLE, local_rows, pieces
from unweave.weights.shift import HALF

UPDATE, AVERAGE = "update", "average"
"""What a tensor of a saved state is."""


@dataclass(frozen=True)
class TrainState:
    """The weights and everything that their next update depends on.

    Args:
        weights: The trainable weights by name.
        update: Their optimizer.
        average: The average of the weights, from `start_average`; empty if none is kept.
    """

    weights: Mapping[str, nn.Parameter]
    update: torch.optim.Optimizer
    average: Mapping[str, Tensor]

    def follow_average(self, decay: float | None, before: int) -> None:
        """Updates the average of the weights; its decay rises with the number of steps, up to `decay`."""
        if decay is not None:
            share = 1 - min(decay, (1 + before) / (10 + before))
            weights = [p.detach().to(self.average[name].dtype) for name, p in self.weights.items()]
            torch._foreach_lerp_(pieces(self.average.values()), pieces(weights), share)

    @contextmanager
    def use_average(self) -> Iterator[None]:
        """Replaces the weights by their average, if there is one, for the body."""
        current = {name: self.weights[name].detach().clone() for name in self.average}
        copy_into(self.average, self.weights)
        try:
            yield
        finally:
            copy_into(current, self.weights)

    def keep_average(self) -> None:
        """Replaces the weights by their average, if there is one, and drops the gradients."""
        copy_into(self.average, self.weights)
        self.update.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The state of the optimizer and the average, without the weights: see `load`."""
        updates = {
            f"{UPDATE} {key}:{name}": value
            for name, p in self.weights.items()
            for key, value in self.update.state.get(p, {}).items()
            if isinstance(value, Tensor)
        }
        return {**updates, **{f"{AVERAGE}:{name}": mean for name, mean in self.average.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `tensors` returned; the numbers of the optimizer, such as its rate, stay."""
        numbers = {name: number for number, name in enumerate(self.weights)}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, name = key.partition(":")
            if kind.startswith(f"{UPDATE} "):
                states.setdefault(numbers[name], {})[kind.removeprefix(f"{UPDATE} ")] = value
        self.update.load_state_dict({**self.update.state_dict(), "state": states})
        copy_into({name: tensors[f"{AVERAGE}:{name}"] for name in self.average}, self.average)


def start_average(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Starts an average at the weights, in float32 or wider so that small updates are not lost."""
    wide = {name: torch.float32 if p.dtype in HALF else p.dtype for name, p in weights.items()}
    return {name: p.detach().to(wide[name], copy=True) for name, p in weights.items()}


@torch.no_grad()
def copy_into(values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copies values into the weights of the same names."""
    for name, value in values.items():
        weights[name].copy_(value)


class PinnedWeights:
    """Weights that must not change: momentum and weight decay also change weights without a gradient.

    Args:
        weights: All trainable weights.
        where: The multiplier; weights at zero are pinned.

    Raises:
        ValueError: If the mask is not one of these weights.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], where: Mask | None) -> None:
        if where is not None and where.keys() != weights.keys():
            unmatched_names = sorted(where.keys() ^ weights.keys())
            raise ValueError(
                f"a mask has one multiplier per trainable weight, by its name, found {len(where)} for "
                f"{len(weights)}: {unmatched_names[0]!r} is in one of the two alone"
            )
        masks = {} if where is None else {name: local_rows(where[name]) == 0 for name in weights}
        self.pinned = [
            (weights[name], mask, local_rows(weights[name].detach()).clone())
            for name, mask in masks.items()
            if bool(mask.any())
        ]

    def restore(self, update: torch.optim.Optimizer) -> None:
        """Restores the pinned weights, and zeroes their optimizer state."""
        for p, mask, start in self.pinned:
            weights = local_rows(p.detach())  # the same memory
            weights.copy_(torch.where(mask, start, weights))
            for state in update.state[p].values():
                if isinstance(state, Tensor) and state.shape == p.shape:
                    zero_where(local_rows(state), mask)


def zero_where(state: Tensor, mask: Tensor) -> None:
    """Zeroes some numbers of an optimizer's state, in place; one of 8 bits is rounded anew."""
    if type(state) in WHOLE:
        state.masked_fill_(mask, 0)
    else:
        state.copy_(state.dequantize().masked_fill_(mask, 0))

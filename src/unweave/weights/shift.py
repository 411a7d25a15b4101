"""Temporary changes of the weights: a shift in place, or other tensors substituted in the modules."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from unweave.weights.params import Params
from unweave.weights.sharded import pieces

T = TypeVar("T")

HALF = (torch.bfloat16, torch.float16)


def refuse_half(params: Mapping[str, Tensor]) -> None:
    """Raises if a trainable weight is bf16 or fp16, which has too few digits for a shift."""
    for name, p in params.items():
        if p.dtype in HALF:
            raise ValueError(
                f"a lookahead needs float32 weights, found {name} in {p.dtype}: most of the shift would be "
                "rounded away; load the model in float32 (model.float()) as the master copy, and then set "
                "precision='bf16', which runs its passes in bfloat16"
            )


@contextmanager
def shift_weights(
    params: Mapping[str, Tensor], direction: Params, size: float, spare: list[list[Tensor]], result: T
) -> Iterator[T]:
    """Shifts the weights in place by `size * direction` for the body; restores them bit for bit.

    Args:
        params: The weights.
        direction: The direction.
        size: The factor of the direction.
        spare: Memory for the saved weights, reused by later shifts.
        result: What the `with` statement returns.
    """
    # detach shares the memory, and autograd still notices the changes
    weights = pieces([p.detach() for p in params.values()])
    originals = spare.pop() if spare else [torch.empty_like(p) for p in weights]
    torch._foreach_copy_(originals, weights)
    try:
        torch._foreach_add_(weights, pieces([direction[name] for name in params]), alpha=size)
        torch.clear_autocast_cache()  # the caller's autocast would go on using weights that it cast earlier
        yield result
    finally:
        torch._foreach_copy_(weights, originals)
        spare.append(originals)
        torch.clear_autocast_cache()


@contextmanager
def substitute_weights(
    model: nn.Module, params: Mapping[str, Tensor], by: Mapping[str, nn.Parameter]
) -> Iterator[None]:
    """Substitutes other tensors for the weights, in forward and backward passes, tied weights included.

    `torch.func.functional_call` ends with the forward pass, and gradient checkpointing runs the modules
    again after it.
    """
    names = {id(p): name for name, p in params.items()}
    places = [
        (module, key, p)
        for module in model.modules()
        for key, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(p) in names
    ]
    for module, key, p in places:
        # an attribute, not an entry of `_parameters`: a recurrent module keeps its own list
        setattr(module, key, by[names[id(p)]])
    try:
        yield
    finally:
        for module, key, p in places:
            setattr(module, key, p)

"""Weights somewhere else for a while, in place or as copies in the modules' place; then they are back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unweave.weights.params import Params, is_sharded

HALF = (torch.bfloat16, torch.float16)


def refuse_half(params: Mapping[str, Tensor]) -> None:
    """Raises if a trainable weight has too few digits to be shifted."""
    for name, p in params.items():
        if p.dtype in HALF:
            raise ValueError(
                f"a lookahead needs float32 weights, found {name} in {p.dtype}: most of the shift would be "
                "rounded away; load the model in float32 (model.float()) as the master copy, and then set "
                "precision='bf16', which runs its passes in bfloat16"
            )


@contextmanager
def shift_weights(
    params: Mapping[str, Tensor], direction: Params, size: float, spare: list[list[Tensor]]
) -> Iterator[None]:
    """Moves the weights by so much in a direction, in place; they come back bit for bit.

    Args:
        params: The weights.
        direction: Where to.
        size: How far, relative to the direction.
        spare: Memory to keep the weights in meanwhile, used again by the next.
    """
    # the same memory, and changes are noticed by graphs
    weights = [p.detach() for p in params.values()]
    saved = spare.pop() if spare else [torch.empty_like(p) for p in weights]
    copy(weights, into=saved)
    try:
        torch._foreach_add_(weights, [direction[name] for name in params], alpha=size)
        torch.clear_autocast_cache()  # a caller's own autocast would go on with the weights it has cast
        yield
    finally:
        copy(saved, into=weights)
        spare.append(saved)
        torch.clear_autocast_cache()


def copy(values: list[Tensor], *, into: list[Tensor]) -> None:
    """Copies the values."""
    if any(map(is_sharded, values)):  # these have no `_foreach_copy_`
        for target, value in zip(into, values, strict=True):
            target.copy_(value)
    else:
        torch._foreach_copy_(into, values)


@contextmanager
def substitute_weights(
    model: nn.Module, params: Mapping[str, Tensor], by: Mapping[str, nn.Parameter]
) -> Iterator[None]:
    """Puts other tensors in the place of the weights, forward and backward, tied weights included.

    `torch.func.functional_call` ends with the forward pass, and gradient checkpointing runs the modules
    again after it.
    """
    names = {id(p): name for name, p in params.items()}
    held = [
        (module, key, p)
        for module in model.modules()
        for key, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(p) in names
    ]
    for module, key, p in held:
        # not into the table of parameters: a recurrent module keeps another list
        setattr(module, key, by[names[id(p)]])
    try:
        yield
    finally:
        for module, key, p in held:
            setattr(module, key, p)

"""Weights rounded to eight bits, as a model is often shipped: an edit smaller than a step is undone."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 127


@torch.no_grad()
def round_weights(model: nn.Module) -> nn.Module:
    """A copy whose matrices are rounded to 255 levels, symmetric around zero, with a scale per output.

    Biases and the weights of normalisation stay as they are, as in common 8-bit formats.
    """
    rounded = copy.deepcopy(model)
    for p in rounded.parameters():
        if p.ndim > 1:
            p.copy_(round_rows(p))
    return rounded


def round_rows(weight: Float[Tensor, "output *inputs"]) -> Float[Tensor, "output *inputs"]:
    """The weight with each output's entries rounded to multiples of its largest, divided by 127."""
    rows = weight.flatten(1)
    step = rows.abs().max(1, keepdim=True).values / LEVELS
    step = torch.where(step == 0, torch.ones_like(step), step)
    return ((rows / step).round() * step).view_as(weight)

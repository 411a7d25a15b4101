"""Weights rounded to eight bits, as a model is often shipped: an edit smaller than a step is undone."""

import copy

import torch
from torch import nn

from unweave.audits.quantize import quantize


@torch.no_grad()
def round_weights(model: nn.Module) -> nn.Module:
    """A copy whose matrices are rounded to 255 levels, symmetric around zero, with a scale per output.

    Biases and the weights of normalisation stay as they are, as in common 8-bit formats.
    """
    rounded = copy.deepcopy(model)
    for p in rounded.parameters():
        if p.ndim > 1:
            p.copy_(quantize(p.flatten(1), 8).view_as(p))
    return rounded

"""Weights rounded to a few bits, as a model is often shipped: an edit smaller than half a step is undone."""

import torch
from jaxtyping import Float
from torch import Tensor


def quantize(rows: Float[Tensor, "row n"], bits: int) -> Float[Tensor, "row n"]:
    """Each row rounded to multiples of its own step, as many as the bits have on both sides of zero."""
    step = rows.abs().max(1, keepdim=True).values / (2 ** (bits - 1) - 1)
    step = torch.where(step == 0, torch.ones_like(step), step)
    return (rows / step).round() * step

"""Models with fresh weights and the architecture of a given one."""

import copy

import torch
from torch import nn


def fresh_copy(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose layers are initialised again; torch's global generator stays as it was.

    Raises:
        ValueError: If no layer of the model can initialise itself.
    """
    again = copy.deepcopy(model)
    layers = [module for module in again.modules() if callable(getattr(module, "reset_parameters", None))]
    if not layers:
        raise ValueError(
            f"an untrained model needs layers with reset_parameters(), found none in {type(model).__name__}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in layers:
            module.reset_parameters()  # pyright: ignore[reportCallIssue]  (checked above)
    return again.eval()

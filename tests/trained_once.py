"""Models that one process of a run trains and all others read, those that tests start among them."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

FOLDER = "UNWEAVE_TEST_TRAINED"
"""The environment variable with the folder that they share; without it each process trains its own."""


def train_once(name: str, model: nn.Module, train: Callable[[nn.Module], None]) -> nn.Module:
    """Trains a fresh model in place, or reads the weights that another process of this run has trained."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        train(model)
        return model
    path = Path(folder) / f"{name}.pt"
    with FileLock(f"{path}.lock"):
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
        else:
            train(model)
            torch.save(model.state_dict(), path)
    return model

"""A net trained on the digits for a moment, and after a step up the loss of one record."""

import copy
from functools import cache

import torch
from torch import nn

from unweave.audits.attacks.update_alignment import loss_gradient
from unweave.data.datasets import load
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.split import Split
from unweave.tasks.models import build


@cache
def digits() -> tuple[Split, nn.Module]:
    """The digits, and a net trained on them for a moment."""
    train, test = load("digits")
    split = Split(train, [0], test)
    how = Descent(lr=0.1, steps=120)
    return split, train_model(how, lambda: build("mlp", 10, {"hidden": 64}), split, "mixed", 0).model


def record(i: int) -> tuple[torch.Tensor, int]:
    split, _ = digits()
    (batch,) = split.train.stream([torch.tensor([i])])
    return batch.inputs[0], int(batch.label)


def ascend(i: int, lr: float = 0.01, where: float = 1.0) -> nn.Module:
    """The net after one ascent step on one record, on a share of the weights."""
    _, model = digits()
    inputs, label = record(i)
    ascended_model = copy.deepcopy(model)
    gradient = loss_gradient(model, (inputs,), torch.tensor([label]))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in ascended_model.named_parameters():
            p.add_(lr * gradient[name] * (torch.rand(p.shape, generator=draw) <= where))
    return ascended_model

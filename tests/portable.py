"""Small problems whose results differ between processors by the rounding of float64 alone.

The data is read, not drawn, and weights are made in float64: draws in float32 differ already.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import every_family
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.diffusion.sampler import Sampler

STEPS = 18
"""Of each descent; the fewest that give every phase of every method one."""


@contextmanager
def double() -> Iterator[None]:
    """New tensors are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Denoiser(every_family.Denoiser):
    """The toy, with a weight under the name that U-Nets give to the attention of their decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList([nn.ModuleDict({"attentions": nn.Conv2d(1, 1, 1)})])

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.up_blocks[0]["attentions"](super().forward(x, time, condition))


MODELS: Mapping[str, Callable[[], nn.Module]] = {"classifier": every_family.ConvNet, "denoiser": Denoiser}
TRAINING: Mapping[str, Descent] = {
    "classifier": Descent(lr=0.1, steps=30, batch=30),
    "denoiser": Descent(lr=0.01, steps=30, batch=30, optimizer="adam", ema=0.9),
}


def task(family: str, whole_class: bool = False) -> Task:
    return every_family.task("denoiser" if family == "denoiser" else "batchnorm", whole_class)


@cache
def split(family: str, whole_class: bool = False) -> Split:
    """Handwritten 0 to 3, 60 to train on; 13 of these are to be forgotten, or those of class 3."""
    images, labels = load_digits(n_class=every_family.CLASSES, return_X_y=True)
    inputs, labels = torch.tensor(images[:100] / 8 - 1).view(-1, 1, 8, 8), torch.tensor(labels[:100])
    inputs = inputs[:, :, ::2, ::2] if family == "denoiser" else inputs
    train, held_out = (
        every_family.Toy((inputs[rows],), labels[rows]) for rows in (slice(60), slice(60, None))
    )
    forget = (train.labels == 3).nonzero()[:, 0] if whole_class else torch.arange(2, 60, 4)[:13]
    return Split(train, forget.tolist(), held_out)


def trained(family: str, on: Split, part: str = "mixed") -> nn.Module:
    return train_model(TRAINING[family], MODELS[family], on, part, 0, task=task(family)).model


@cache
def original(family: str) -> nn.Module:
    return trained(family, split(family))


def problem(family: str, whole_class: bool) -> Problem:
    """A fresh request."""
    model, generator = copy.deepcopy(original(family)), torch.Generator().manual_seed(0)
    scorer, data = task(family, whole_class), split(family, whole_class)
    return Problem(scorer, model, data, generator, MODELS[family])


def shortened(settings: Any) -> Any:
    """The same settings with short descents and samplers, however deep inside."""
    match settings:
        case Descent():
            return replace(settings, steps=STEPS, epochs=None, batch=16, forget_batch=8)
        case Sampler():
            return replace(settings, steps=3)
    inner = {each.name: vars(settings)[each.name] for each in fields(settings)}
    changes = {name: shortened(value) for name, value in inner.items() if is_dataclass(value)}
    return replace(settings, **changes)


def fingerprint(*parts: Tensor) -> dict[str, float]:
    """The inner product of all floating numbers with fixed ones, and the norm."""
    vector = torch.cat([part.detach().flatten() for part in parts if part.is_floating_point()])
    product = vector @ (0.7 * torch.arange(len(vector))).sin()
    return {"product": float(product), "norm": float(vector.norm())}

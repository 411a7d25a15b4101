"""Plain arithmetic for denoisers: a task that remembers its draws, losses and sampling written out."""

from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from every_family import CLASSES, problem
from unweave.data import Raw
from unweave.methods import Method
from unweave.problem import Problem
from unweave.tasks import Batch
from unweave.tasks.diffusion import Diffusion

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Recorder(Diffusion):
    """The task of a denoiser that remembers every batch it draws."""

    n_classes: int = CLASSES
    names: tuple[str, str, str] | None = ("x", "time", "condition")
    drawn: list[Batch] = field(default_factory=list, compare=False)

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        self.drawn.append(super().draw(raw, generator))
        return self.drawn[-1]


def recorded(**settings) -> tuple[Problem, Recorder]:
    """A request in float64 to forget class 3."""
    recorder = Recorder(**{"null": CLASSES, "forgotten": (3,), **settings})
    return problem("denoiser", dtype=torch.float64, whole_class=True, scorer=recorder), recorder


def whole(method: M, **changes) -> M:
    """The method with batches as large as their parts: plain gradient steps without an average."""
    base = {"lr": 0.1, "steps": 1, "epochs": None, "batch": 100, "optimizer": "sgd", "momentum": 0.0}
    base |= {"max_norm": None, "ema": None}
    return replace(method, how=replace(method.how, **(base | changes)))


def error(model: nn.Module, x: Tensor, time: Tensor, condition: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of a denoiser's answer."""
    return (model(x, time, condition) - target).square().mean()


def error_on(model: nn.Module, batch: Batch, target: Tensor | None = None) -> Tensor:
    """The same on what was drawn."""
    x, time, condition = batch.inputs.values()
    return error(model, x, time, condition, batch.target if target is None else target)


def on_the_way(
    model: nn.Module, x: Tensor, condition: int, null: int, updates: int, *, steps: int, scale: float
) -> Tensor:
    """One image after a number of DDIM updates, with a linear schedule of 1000 times, written out."""
    alphas = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    times = [i * (1000 // steps) for i in range(steps)][::-1]

    def answer(at: int, under: int) -> Tensor:
        return model(x[None], torch.tensor([at]), torch.tensor([under]))[0]

    for now, after in islice(pairwise(times), updates):
        noise = answer(now, null) + scale * (answer(now, condition) - answer(now, null))
        clean = (x - (1 - alphas[now]).sqrt() * noise) / alphas[now].sqrt()
        x = alphas[after].sqrt() * clean + (1 - alphas[after]).sqrt() * noise
    return x

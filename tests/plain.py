"""Plain torch beside the library: a task that remembers its draws, gradients and SGD written out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from every_family import CLASSES, problem
from unweave.data import Raw
from unweave.descent.descend import Descent
from unweave.methods import Method
from unweave.problem import Problem
from unweave.tasks import Batch
from unweave.tasks.classifier import Classifier

M = TypeVar("M", bound=Method)


class Scaled(nn.Module):
    """A layer with a weight that it cannot draw."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


STILL = 1e-300
"""A learning rate that moves no weight in float64."""


@dataclass(frozen=True)
class Recorder(Classifier):
    """A classifier's task that remembers every batch it draws."""

    n_classes: int = CLASSES
    drawn: list[Batch] = field(default_factory=list, compare=False)

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        self.drawn.append(super().draw(raw, generator))
        return self.drawn[-1]


def recorded(family: str = "layernorm", seed: int = 0) -> tuple[Problem, Recorder]:
    """A problem in float64 whose task remembers the batches."""
    recorder = Recorder()
    return problem(family, dtype=torch.float64, scorer=recorder, seed=seed), recorder


def whole(method: M, **changes) -> M:
    """The method with batches as large as their parts: one step at a constant rate, with weight decay."""
    base = {"lr": 0.1, "steps": 1, "epochs": None, "batch": 100, "forget_batch": 100, "weight_decay": 0.01}
    base |= {"schedule": "constant", "warmup": 0.0, "max_norm": None}
    return replace(method, how=replace(method.how, **(base | changes)))


def batches(of: Problem, recorder: Recorder, how: Descent) -> tuple[list[Batch], list[Batch]]:
    """The forget and the retain batches of the steps of a paired descent of whole parts, drawn last."""
    last = recorder.drawn[-2 * (how.steps or 0) :]
    forget = set(of.split.forget.tolist())
    parts = [set(batch.ids.tolist()) <= forget for batch in last]
    return [b for b, f in zip(last, parts, strict=True) if f], [
        b for b, f in zip(last, parts, strict=True) if not f
    ]


def ce(model: nn.Module, batch: Batch, target: Tensor | None = None) -> Tensor:
    """The mean cross-entropy of a batch."""
    assert isinstance(batch.inputs, tuple)
    return F.cross_entropy(model(batch.inputs[0]), batch.target if target is None else target)


def weights(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def grad(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, weights(model)))


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def clip(g: list[Tensor], to: float) -> list[Tensor]:
    """The gradient, scaled down to a norm."""
    size = dot(g, g) ** 0.5
    return [x * min(1.0, to / (size + 1e-6)) for x in g]


@dataclass
class Sgd:
    """Stochastic gradient descent, written out: v <- momentum v + g + decay w, w <- w - lr v."""

    model: nn.Module
    how: Descent
    velocity: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def step(self, g: Sequence[Tensor], lr: float | None = None) -> None:
        ps = weights(self.model)
        g = [x + self.how.weight_decay * p for x, p in zip(g, ps, strict=True)]
        self.velocity = (
            [self.how.momentum * v + x for v, x in zip(self.velocity, g, strict=True)] if self.velocity else g
        )
        for p, v in zip(ps, self.velocity, strict=True):
            p.sub_((self.how.lr if lr is None else lr) * v)


def moved_apart(a: nn.Module, b: nn.Module) -> float:
    """The largest difference in any weight or buffer."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


def start_of(make: Callable[[], Problem], method: M) -> nn.Module:
    """The model after a method's one-shot edits, before its descent."""
    of = make()
    whole(method, lr=STILL, momentum=0.0, weight_decay=0.0, norm="frozen")(of)
    return of.model

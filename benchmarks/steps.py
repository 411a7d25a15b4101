"""What a step costs: the modes of LUR and Scissorhands' repair against a training loop written by hand.

    python benchmarks/steps.py                   # twenty minutes of one core; --rounds 3 for a first look
    python benchmarks/steps.py --record records/steps.json

On a GPU three modes also run replayed, with `compile="step"`. Everything but the loop by hand runs through
the library's own `descend`. How it is timed, and what memory is, says `interleaved.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from interleaved import Tick, report
from torch import Tensor
from torch.nn import functional

from unweave.data.datasets import load
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.feed import forever
from unweave.descent.lookahead import ReusedGradient
from unweave.descent.objective import Objective, bounded, nll
from unweave.methods.lur import TERMS, Mode
from unweave.methods.scissorhands import Scissorhands
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.tasks.models import build

ALPHA, WEIGHT = 0.01, 0.3
MODES: tuple[Mode, ...] = ("joint", "lagged", "nested", "exact")
REPLAYED = [f"{mode} replayed" for mode in MODES[:3]] if torch.cuda.is_available() else []


@dataclass(frozen=True)
class Setting:
    """A model, its data and the length of a descent.

    Args:
        model: A key of `MODELS`.
        batch: Retain examples per step.
        forget_batch: Forget examples per step.
        warm: Steps before the clock starts: the first of a descent checks more and allocates.
        steps: Steps that are timed.
        targets: The largest ratio to the loop by hand that a competitor may have.
    """

    model: str
    batch: int
    forget_batch: int
    warm: int
    steps: int
    targets: Mapping[str, float]
    competitors: ClassVar[Sequence[str]] = ("by hand", *MODES, "scissorhands", *REPLAYED)

    def how(self, steps: int) -> Descent:
        """Plain SGD with momentum and no clip, so that the loop by hand is short."""
        return Descent(lr=1e-3, steps=steps, batch=self.batch, forget_batch=self.forget_batch)

    def problem(self, device: str) -> Problem:
        """Fresh weights and data on the device; a quarter of the data is to be forgotten."""
        torch.manual_seed(0)
        train, held_out = load("digits") if self.model == "mlp" else (noise(1024), noise(64))
        split = Split(train.to(device), range(0, len(train), 4), held_out.to(device))
        model = build(self.model, 10, {}).to(device)
        return Problem(Classifier(10), model, split, torch.Generator().manual_seed(0))

    def run(self, competitor: str, problem: Problem, how: Descent, tick: Tick) -> None:
        """One descent."""
        problem.watch = tick
        mode, _, suffix = competitor.partition(" ")
        if competitor == "by hand":
            by_hand(problem, how, tick)
        else:
            how = replace(how, compile="step") if suffix else how
            descend(problem, how, phase_of(mode, WEIGHT * bounded(), ALPHA))


SETTINGS = {
    "resnet18": Setting(
        "resnet18", 32, 32, 1, 3, {"joint": 1.03, "lagged": 1.1, "nested": 1.75, "exact": 2.6}
    ),
    "digits": Setting("mlp", 128, 32, 20, 100, {"lagged": 1.15}),
}


def noise(n: int) -> Resident:
    """Images of 3 x 32 x 32 random pixels: what is in them costs nothing."""
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
    return Resident(images, torch.arange(n) % 10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def phase_of(competitor: str, forget: Objective, alpha: float) -> Phase:
    """What a mode of LUR follows, or Scissorhands' repair, whose forget loss is its own."""
    if competitor == "scissorhands":
        unlearn = -nll("forget")
        repair = nll("retain") + Scissorhands().forget_weight * unlearn
        return Phase([repair, ReusedGradient(unlearn, every=10**9)], rule="gem")
    return Phase({name: TERMS[name] for name in MODES}[competitor](nll("retain"), forget, alpha))


def by_hand(problem: Problem, how: Descent, tick: Tick) -> None:
    """Joint training as one writes it without a library: two forward passes, one backward pass."""
    model, split = problem.model.train(), problem.split
    optimizer = torch.optim.SGD(model.parameters(), how.lr, how.momentum)
    retain = plain_batches(split.train, split.retain, how.batch, problem.generator)
    forget = plain_batches(split.train, split.forget, how.forget_batch or how.batch, problem.generator)
    for index in range(how.steps or 0):
        (x_r, y_r), (x_f, y_f) = next(retain), next(forget)
        tick(problem, index)
        forgetting = -functional.cross_entropy(model(x_f), y_f, reduction="none").log1p().mean()
        loss = functional.cross_entropy(model(x_r), y_r) + WEIGHT * forgetting
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def plain_batches(
    source: object, ids: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of shuffled batches."""
    assert isinstance(source, Resident)
    labels = source.labels.to(source.inputs.device)
    for rows in forever(ids, size, generator):
        x = source.inputs[rows.to(source.inputs.device)]
        yield (x if x.is_floating_point() else (x.float() / 255 - 0.5) / 0.25), labels[rows.to(labels.device)]


if __name__ == "__main__":
    report(__doc__ or "", SETTINGS, base="by hand", modes=MODES[1:], alpha=ALPHA)

"""What a step costs on a denoiser: the modes of LUR, SalUn and Scissorhands' repair against `joint`.

    python benchmarks/denoiser_steps.py          # ten minutes of one core; --rounds 3 for a first look
    python benchmarks/denoiser_steps.py --device cuda
    python benchmarks/denoiser_steps.py --record records/denoiser-steps.json

All run through the library's own `descend`, under Adam, on the U-Net of the digits. Forgetting is `mislabel`:
a frozen copy of the model is asked about the same noisy images under another condition. Scissorhands ascends
instead and asks no teacher. Left out is what a method does once before its steps: SalUn's mask is a random
half of the weights. How it is timed, and what memory is, says `interleaved.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from interleaved import Tick, report
from steps import MODES, phase_of

from unweave.data.datasets import as_images, load
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.importance import Mask
from unweave.descent.objective import mislabel, nll
from unweave.problem import Problem, frozen_copy
from unweave.split import Split
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.models import DENOISERS, build

ALPHA, WEIGHT, FORGOTTEN = 0.1, 0.33, 3


@dataclass(frozen=True)
class Setting:
    """The U-Net of the digits, and the length of a descent.

    Args:
        batch: Retain examples per step, and as many forget examples.
        warm: Steps before the clock starts: the first of a descent checks more and allocates.
        steps: Steps that are timed.
        targets: The largest ratio to joint that a competitor may have.
    """

    batch: int = 32
    warm: int = 2
    steps: int = 10
    targets: Mapping[str, float] = field(default_factory=dict)
    competitors: ClassVar[Sequence[str]] = (*MODES, "scissorhands", "salun")

    def how(self, steps: int) -> Descent:
        """As denoisers are trained."""
        return Descent(lr=1e-4, steps=steps, batch=self.batch, optimizer="adam")

    def problem(self, device: str) -> Problem:
        """Fresh weights, and the digits on the device, one of which is to be forgotten."""
        torch.manual_seed(0)
        train, held_out = (as_images(source).to(device) for source in load("digit-images"))
        forget = (train.labels == FORGOTTEN).nonzero()[:, 0]
        task = Diffusion(10, null=10, drop=0.1, forgotten=(FORGOTTEN,))
        model = build("unet", 10, {}, among=DENOISERS).to(device)
        return Problem(task, model, Split(train, forget, held_out), torch.Generator().manual_seed(0))

    def run(self, competitor: str, problem: Problem, how: Descent, tick: Tick) -> None:
        """One descent."""
        problem.watch, forget = tick, mislabel(teacher=frozen_copy(problem.model))
        if competitor == "salun":
            phase = Phase([forget + nll("retain")], where=half(problem))
        else:
            phase = phase_of(competitor, WEIGHT * forget, ALPHA)
        descend(problem, how, phase)


def half(problem: Problem) -> Mask:
    """A random half of the weights."""
    return {name: (torch.rand_like(p) < 0.5).to(p) for name, p in problem.params.items()}


if __name__ == "__main__":
    report(__doc__ or "", {"digits-unet": Setting()}, base="joint", modes=MODES[1:], alpha=ALPHA)

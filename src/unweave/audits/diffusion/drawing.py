"""A class-conditional denoiser for attacks: drawing, relearning, and the loss of a vector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.audits.diffusion.images import check_images
from unweave.data import Raw, Source
from unweave.data.datasets import as_images
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.problem import Problem, frozen_copy
from unweave.split import Split
from unweave.tasks import call
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.condition_vectors import vectors
from unweave.tasks.diffusion.sample import Start, sample, to_bytes
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.scopes import merge_low_rank

T = TypeVar("T")

RELEARNING = Descent(lr=1e-4, steps=60, batch=32, optimizer="adam")
CHECKS = (5, 10, 15, 20, 30, 40)


@dataclass(frozen=True, eq=False)
class Drawing:
    """Draws images from a denoiser: `unweave.audits.diffusion.sweeps.Generate`.

    Args:
        model: The denoiser.
        task: Its prediction target, noise schedule and null condition.
        shape: Channels, height and width of its images.
        how: The sampler; its guidance is the default of attacks.
    """

    model: nn.Module
    task: Diffusion
    shape: tuple[int, int, int]
    how: Sampler = Sampler("dpm", steps=10)

    def __call__(
        self, condition: int | Tensor, seeds: Sequence[int], guidance: float, start: Start | None = None
    ) -> Tensor:
        """Draws one uint8 image per seed, under a class or a vector instead of its embedding.

        With `start` not from noise but from images as the model sees them.
        """
        n, how = len(seeds), replace(self.how, guidance=guidance)
        conditions = (
            torch.full((n,), condition)
            if isinstance(condition, int)
            else condition.expand(n, *condition.shape)
        )
        return replace(self, how=how).draw_each(conditions, seeds, start)

    def draw_each(self, conditions: Tensor, seeds: Sequence[int], start: Start | None = None) -> Tensor:
        """Draws one uint8 image per seed under a condition of its own, with the guidance of the sampler."""
        samples = sample(
            self.model,
            self.task,
            conditions,
            shape=self.shape,
            how=self.how,
            seeds=seeds,
            start=start,
            rounded=False,
        )
        return self.as_images(samples)

    def as_images(self, drawn: Float[Tensor, "n channel height width"]) -> Tensor:
        """What the model draws, as uint8 images."""
        return to_bytes(drawn)

    def check(self, images: Tensor) -> Tensor:
        """Returns real images, checked."""
        return check_images(images, self.shape)

    def inputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Real images as the task takes them."""
        return (self.check(images),)

    def clean(self, images: Tensor) -> Float[Tensor, "n channel height width"]:
        """Real images as the model sees them without noise."""
        return self.check(images).float() / 127.5 - 1

    def source(self, images: Tensor, condition: int) -> Source:
        """Real images of a condition, as the model is trained on them."""
        return as_images(Resident(self.check(images), torch.full((len(images),), condition)))

    def vector(self, condition: int) -> Float[Tensor, "*shape"]:
        """The embedding of a class or a prompt."""
        device = next(self.model.parameters()).device
        return vectors(self.model, torch.tensor([condition], device=device))[0].detach()


@dataclass(frozen=True, eq=False)
class Relearner:
    """Fine-tunes a copy of a denoiser on images of one class.

    All weights are trained, including those frozen during unlearning, and low-rank additions are merged
    first. Checks come before the first step, after some steps and after the last.

    Args:
        drawing: Draws from the denoiser, which stays unchanged.
        condition: The class.
        how: The training.
        checks: The steps after which to check.
        seed: The seed of the order of the images and of their noise and times.
    """

    drawing: Drawing
    condition: int
    how: Descent = RELEARNING
    checks: Sequence[int] = CHECKS
    seed: int = 0

    def __call__(self, images: Tensor, measure: Callable[[Drawing], T]) -> list[tuple[int, T]]:
        """The steps taken at every check, and what is measured then.

        Args:
            images: The images to learn, uint8 [n, channel, height, width].
            measure: Measures what draws from the copy, whose weights the next step changes.
        """
        checks: list[tuple[int, T]] = []

        def look(problem: Problem, index: int) -> None:
            if index in {0, *self.checks}:
                checks.append((index, measure(replace(self.drawing, model=problem.model))))

        problem = self.problem(images)
        steps = descend(problem, self.how, Phase([nll("mixed")], watch=look))
        return [*checks, (steps, measure(replace(self.drawing, model=problem.model)))]

    def problem(self, images: Tensor) -> Problem:
        """The problem of relearning: a copy of the denoiser and the images, with conditions never dropped."""
        model = merge_low_rank(self.drawing.model)
        source = self.drawing.source(images, self.condition)
        split = Split(source.to(next(model.parameters()).device), [0], source)  # all train
        task = replace(self.drawing.task, drop=0.0)
        return Problem(task, model, split, torch.Generator().manual_seed(self.seed))


def denoising_loss(
    drawing: Drawing, images: Tensor, *, draws: int = 64, seed: int = 0
) -> Callable[[Tensor], Float[Tensor, ""]]:
    """The denoising loss of images under a vector, as a function of the vector.

    Args:
        drawing: Draws from the denoiser, which stays unchanged.
        images: Real images of a class, uint8 [n, channel, height, width].
        draws: The number of noisy images, the same for every vector; they cycle through the images.
        seed: The seed of their times and noise.
    """
    images = images[:draws]
    model, task = frozen_copy(drawing.model), replace(drawing.task, names=None)
    weight = next(model.parameters())
    ids = torch.arange(draws, device=weight.device)
    inputs = tuple(each.to(weight.device)[ids % len(images)] for each in drawing.inputs(images))
    batch = task.draw(Raw(ids, inputs, torch.zeros_like(ids)), torch.Generator().manual_seed(seed))
    assert isinstance(batch.inputs, tuple)
    noisy, time, target = batch.inputs[0].to(weight), batch.inputs[1], batch.target.to(weight)

    def loss(vector: Tensor) -> Float[Tensor, ""]:
        prediction = call(model, drawing.task.named_inputs(noisy, time, vector.expand(draws, *vector.shape)))
        return task.loss(prediction, target).mean()

    return loss

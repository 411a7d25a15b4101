"""Drawing images from a denoiser: a loop over the schedulers of diffusers, one generator per image.

An image depends on the model, the settings, its condition and its seed, and not on its batch or the other
images, up to rounding in the model. Needs the extra `unweave[diffusion]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from unweave.choices import refuse_outside
from unweave.errors import Failed
from unweave.tasks import call, evaluating
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.condition_vectors import Condition, refuse_other_width, vectors
from unweave.tasks.diffusion.sampler import SCHEDULERS, Sampler, refuse_late

__all__ = ["Sampler", "sample"]

AT_ONCE = 256
"""The default number of images drawn together."""

PIXELS = 2**14
"""The largest number of their pixels on a CPU: beyond its cache, images of 28 x 28 take twice as long."""


@dataclass(frozen=True, eq=False)
class Start:
    """Images to start at instead of noise, as in image-to-image of diffusers (Meng et al., 2022).

    Args:
        images: One for each image to draw, as numbers around [-1, 1], or latents.
        strength: The share of the steps that are taken; at one only noise is left of an image.
    """

    images: Float[Tensor, "n channel height width"]
    strength: float

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, 1]", "strength")


@torch.no_grad()
def sample(
    model: nn.Module,
    task: Diffusion,
    conditions: Condition,
    *,
    shape: tuple[int, int, int],
    how: Sampler = Sampler(),
    seeds: Sequence[int] | None = None,
    start: Start | None = None,
    chunk: int | None = None,
    rounded: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Shaped[Tensor, "n channel height width"]:
    """Draws images as bytes, on the CPU, without normalising their contrast.

    Args:
        model: The denoiser; it runs in evaluation mode on its device.
        task: The prediction target, noise schedule and null condition of the model.
        conditions: A class for each image, or `task.null`; or a vector instead of its embedding.
        shape: Channels, height and width.
        how: The sampler.
        seeds: One seed per image; `0 .. n - 1` if None. Compare two models on the same seeds.
        start: Images to start at; noise if None.
        chunk: The number of images drawn at once; chosen for the device if None.
        rounded: Whether to return bytes; if not, numbers around [-1, 1], or latents.
        progress: Called with the number of finished images, and the total.

    Raises:
        ValueError: If a condition is unknown, or guidance is used without a null condition.
        Failed: If an image is not finite.
    """
    seeds = range(len(conditions)) if seeds is None else seeds
    refuse_impossible(task, conditions, how)
    if conditions.is_floating_point():
        refuse_other_width(model, conditions)
    chunk = chunk_for(model, shape) if chunk is None else chunk
    if len(seeds) != len(conditions) or chunk < 1:
        raise ValueError(
            f"expected a seed per image and chunk >= 1, found {len(seeds)} seeds for {len(conditions)} "
            f"images and chunk={chunk}"
        )
    images = []
    with evaluating(model):
        for first in range(0, len(conditions), chunk):
            rows = slice(first, first + chunk)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[rows]]
            origin = None if start is None else Start(start.images[rows], start.strength)
            images.append(draw_chunk(model, task, conditions[rows], generators, shape, how, origin).cpu())
            if progress:
                progress(min(first + chunk, len(conditions)), len(conditions))
    output = torch.cat(images) if images else torch.empty(0, *shape)
    if not bool(output.isfinite().all()):
        raise Failed("a drawn image is not finite: the model's weights may have diverged")
    return to_bytes(output) if rounded else output


def chunk_for(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """The number of images to draw at once on the model's device."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return max(1, min(AT_ONCE, PIXELS // (shape[1] * shape[2]))) if on_cpu else AT_ONCE


def draw_chunk(
    model: nn.Module,
    task: Diffusion,
    conditions: Condition,
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int],
    how: Sampler,
    start: Start | None = None,
) -> Float[Tensor, "n channel height width"]:
    """Draws one chunk of images."""
    weight = next(model.parameters())
    times, advance = SCHEDULERS[how.scheduler](how, task.schedule)
    conditions, x = conditions.to(weight.device), noise(generators, shape).to(weight)
    if start is not None:
        times = times[len(times) - max(1, int(len(times) * start.strength)) :]
        time = torch.full((len(x),), times[0], device=x.device)
        x = task.schedule.add_noise(start.images.to(weight), x, time)
    if conditions.is_floating_point():
        conditions = conditions.to(weight)
    for time in times:
        predicted = guided_prediction(model, task, x, time, conditions, how.guidance)
        x = advance(predicted, time, x, noise(generators, shape).to(weight) if how.eta else None)
    return x


def guided_prediction(
    model: nn.Module,
    task: Diffusion,
    x: Float[Tensor, "n channel height width"],
    time: int,
    conditions: Condition,
    guidance: float,
) -> Float[Tensor, "n channel height width"]:
    """The model's output, guided away from the unconditional one; one pass for both."""
    times = torch.full((len(x),), time, device=x.device)
    if guidance == 1:
        return call(model, task.named_inputs(x, times, conditions))
    assert task.null is not None
    nulls = torch.full_like(times, task.null)
    batch = torch.cat([conditions, vectors(model, nulls) if conditions.is_floating_point() else nulls])
    predicted, unconditional = call(
        model, task.named_inputs(x.repeat(2, 1, 1, 1), times.repeat(2), batch)
    ).chunk(2)
    return unconditional + guidance * (predicted - unconditional)


def noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    """One Gaussian image per generator, on the CPU: the same on every device."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def to_bytes(images: Float[Tensor, "n channel height width"]) -> UInt8[Tensor, "n channel height width"]:
    """Converts images in [-1, 1] to bytes: clips first, because a cast would wrap around, then rounds."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def refuse_impossible(task: Diffusion, conditions: Condition, how: Sampler) -> None:
    """Raises if a class is unknown, guidance lacks a null condition, or steps do not fit the times."""
    valid_conditions = torch.tensor([*range(task.n_classes), *([] if task.null is None else [task.null])])
    unknown = conditions.cpu()[~torch.isin(conditions.cpu(), valid_conditions)]
    if len(unknown) and not conditions.is_floating_point():
        null_text = "" if task.null is None else f", or {task.null} for none"
        raise ValueError(f"conditions must be in 0..{task.n_classes - 1}{null_text}, found {int(unknown[0])}")
    if how.steps > task.schedule.steps:
        raise ValueError(f"a model of {task.schedule.steps} times can't take {how.steps} steps")
    refuse_late(how, task.schedule)
    if how.guidance != 1 and task.null is None:
        raise ValueError(
            f"guidance {how.guidance} needs a null condition, and this model was trained without: "
            "use guidance=1"
        )

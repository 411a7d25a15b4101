"""Drawing images from a denoiser: a loop over the schedulers of diffusers, one generator per image.

An image depends on the model, the settings, its condition and its seed, and not on its batch or the other
images, up to rounding in the model.

DDIM (Song et al., 2021, https://arxiv.org/abs/2010.02502); DPM-Solver++ (Lu et al., 2022,
https://arxiv.org/abs/2211.01095). Needs the extra `unweave[diffusion]`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.errors import Failed
from unweave.tasks import call, evaluating
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.condition_vectors import Condition, refuse_other_width, vectors
from unweave.tasks.diffusion.schedule import Schedule, betas_of

__all__ = ["Sampler", "sample"]

AT_ONCE = 256
"""The default number of images drawn together."""

PIXELS = 2**14
"""The largest number of their pixels on a CPU: beyond its cache, images of 28 x 28 take twice as long."""

Advance = Callable[[Tensor, int, Tensor, Tensor | None], Tensor]
"""Maps the model's output at a time, the time, the images and fresh noise to the images of the next step."""


@dataclass(frozen=True)
class Sampler:
    """How to draw images.

    Args:
        scheduler: DDIM, or the multistep solver DPM-Solver++ of second order.
        steps: Calls of the model per image; with guidance each is over two conditions.
        guidance: The scale s of e_0 + s (e_c - e_0), without and with the condition, as in diffusers; one
            means no guidance. The w of (1 + w) e_c - w e_0, as in Selective Amnesia and its successors, is s
            - 1.
        eta: The noise that DDIM adds at each step, relative to DDPM; zero is deterministic.
        spacing: "trailing": the first step is at the last time. "leading": it is one step before, as in the
            code of DDIM.
        clip: Whether DDIM clips the predicted clean image of each step to [-1, 1], even if the schedule has
            no range; not for latents.

    Raises:
        ValueError: If a number is out of range.
    """

    scheduler: Literal["ddim", "dpm"] = "ddim"
    steps: int = 50
    guidance: float = 1.0
    eta: float = 0.0
    spacing: Literal["trailing", "leading"] = "trailing"
    clip: bool = False

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[1, inf)", "steps")
        refuse_outside(self, "[0, inf)", "guidance")
        refuse_outside(self, "[0, 1]", "eta")
        if self.scheduler == "dpm" and (self.eta or self.clip):
            raise ValueError("eta and clip are for DDIM: leave them out for 'dpm'")


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


def ddim(how: Sampler, schedule: Schedule) -> tuple[list[int], Advance]:
    """The times of DDIM and its step function."""
    scheduler = schedulers().DDIMScheduler(
        **settings(how, schedule),
        clip_sample=how.clip or schedule.clip is not None,
        clip_sample_range=1.0 if schedule.clip is None else schedule.clip,
        set_alpha_to_one=schedule.ends_clean,
    )
    scheduler.set_timesteps(how.steps)

    def advance(predicted: Tensor, time: int, x: Tensor, new_noise: Tensor | None) -> Tensor:
        return scheduler.step(predicted, time, x, eta=how.eta, variance_noise=new_noise, return_dict=False)[0]

    return scheduler.timesteps.tolist(), advance


def dpm(how: Sampler, schedule: Schedule) -> tuple[list[int], Advance]:
    """The times of DPM-Solver++ and its step function, which uses earlier outputs and never clips."""
    scheduler = schedulers().DPMSolverMultistepScheduler(**settings(how, schedule))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers uses a deprecated call of numpy
        scheduler.set_timesteps(how.steps)

    def advance(predicted: Tensor, time: int, x: Tensor, new_noise: Tensor | None) -> Tensor:
        return scheduler.step(predicted, time, x, return_dict=False)[0]

    return scheduler.timesteps.tolist(), advance


SCHEDULERS = {"ddim": ddim, "dpm": dpm}


def settings(how: Sampler, schedule: Schedule) -> dict[str, Any]:
    """The settings of both schedulers."""
    return {
        "num_train_timesteps": schedule.steps,
        "trained_betas": betas_of(schedule),
        "prediction_type": schedule.prediction,
        "timestep_spacing": how.spacing,
        "rescale_betas_zero_snr": schedule.zero_snr,
        "steps_offset": schedule.offset,
    }


def schedulers() -> ModuleType:
    """Imports diffusers, which only drawing needs."""
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("sampling needs the extra: pip install 'unweave[diffusion]'") from error
    return diffusers


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


def refuse_late(how: Sampler, schedule: Schedule) -> None:
    """Raises if the schedule's offset moves a step beyond the last time."""
    first = SCHEDULERS[how.scheduler](how, schedule)[0][0] if schedule.offset else 0
    if first >= schedule.steps:
        raise ValueError(
            f"the steps_offset {schedule.offset} moves the first of {how.steps} steps to time {first}, and "
            f"the model has the times 0..{schedule.steps - 1}: take fewer steps"
        )

"""How to draw images: the schedulers of diffusers, and the times and the step of each.

DDIM (Song et al., 2021, https://arxiv.org/abs/2010.02502); DPM-Solver++ (Lu et al., 2022,
https://arxiv.org/abs/2211.01095). Needs the extra `unweave[diffusion]`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from torch import Tensor

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.tasks.diffusion.schedule import Schedule, betas_of

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


def refuse_late(how: Sampler, schedule: Schedule) -> None:
    """Raises if the schedule's offset moves a step beyond the last time."""
    first = SCHEDULERS[how.scheduler](how, schedule)[0][0] if schedule.offset else 0
    if first >= schedule.steps:
        raise ValueError(
            f"the steps_offset {schedule.offset} moves the first of {how.steps} steps to time {first}, and "
            f"the model has the times 0..{schedule.steps - 1}: take fewer steps"
        )

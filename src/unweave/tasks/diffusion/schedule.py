r"""The noise schedule of a diffusion model: the share of an image at each time, and the prediction target.

:math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon` (Ho et al., 2020,
https://arxiv.org/abs/2006.11239), with :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.tables import read

__all__ = ["Schedule"]

Prediction = Literal["epsilon", "v_prediction", "sample"]
Images = Float[Tensor, "batch *shape"]
Kind = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]

SCHEDULERS = (
    "DDPM",
    "DDPMParallel",
    "DDIM",
    "DDIMParallel",
    "DDIMInverse",
    "PNDM",
    "LMSDiscrete",
    "SASolver",
)
SCHEDULERS += ("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep", "DEISMultistep")
SCHEDULERS += ("EulerDiscrete", "EulerAncestralDiscrete", "UniPCMultistep")
STABLE = ("HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete")
"""Schedulers with the default betas of Stable Diffusion."""


@dataclass(frozen=True)
class Schedule:
    r"""The noise over time.

    Args:
        kind: The course of beta from `start` to `end`: "linear"; linear in its root ("scaled_linear", Stable
            Diffusion); or a cosine that uses neither ("squaredcos_cap_v2", Nichol & Dhariwal, 2021).
        steps: The number of times T; times are `0 .. T - 1`.
        start: The first beta.
        end: The last beta.
        betas: The betas themselves, instead of `kind`; empty for none.
        prediction: The prediction target: the noise, the velocity :math:`\sqrt{\bar\alpha_t}\, \epsilon -
            \sqrt{1 - \bar\alpha_t}\, x_0` (Salimans & Ho, 2022), or the clean image.
        zero_snr: Whether the schedule is rescaled to pure noise at the last time (Lin et al., 2024, Algorithm
            1).
        clip: DDIM clips the predicted clean image of each step to [-clip, clip]; not if None.
        ends_clean: The last step of DDIM ends at the clean image; if not, at the noise of time 0.
        offset: The offset of the "leading" times of a sampler.

    Raises:
        ValueError: If a number is out of range, a choice is unknown, or the target carries no information.
    """

    kind: Kind = "linear"
    steps: int = 1000
    start: float = 1e-4
    end: float = 0.02
    betas: tuple[float, ...] = ()
    prediction: Prediction = "epsilon"
    zero_snr: bool = False
    clip: float | None = None
    ends_clean: bool = True
    offset: int = 0

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "(0, inf)", "clip")
        refuse_outside(self, "[0, inf)", "offset")
        if self.steps < 2 or (self.betas and len(self.betas) != self.steps):
            raise ValueError(f"a schedule needs two steps, one per beta, found {self.steps} steps")
        if not all(0 < beta < 1 for beta in (self.start, self.end, *self.betas)):
            raise ValueError(f"betas must be in (0, 1), found {self.start} to {self.end}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Schedule":
        """The schedule of a diffusers scheduler config; missing values have diffusers' defaults.

        But images are clipped only if the config says so: diffusers writes `clip_sample` into every config of
        a scheduler that can clip.

        Raises:
            ValueError: If the config is of another noise process, or a value is not supported.
        """
        values = {field.name: config[field.name] for field in fields(Config) if field.name in config}
        diffusers_config = read(Config, {**defaults(config), **values}, "")
        betas = diffusers_config.trained_betas
        return cls(
            kind="linear" if betas is not None else diffusers_config.beta_schedule,
            steps=len(betas) if betas is not None else diffusers_config.num_train_timesteps,
            start=diffusers_config.beta_start,
            end=diffusers_config.beta_end,
            betas=betas or (),
            prediction=diffusers_config.prediction_type,
            zero_snr=diffusers_config.rescale_betas_zero_snr,
            clip=diffusers_config.clip_sample_range if diffusers_config.clip_sample else None,
            ends_clean=diffusers_config.set_alpha_to_one,
            offset=diffusers_config.steps_offset,
        )

    def add_noise(self, clean: Images, noise: Images, time: Int[Tensor, " batch"]) -> Images:
        """The noisy images at their times."""
        signal, spread = self.scales(time, clean)
        return signal * clean + spread * noise

    def target(self, clean: Images, noise: Images, time: Int[Tensor, " batch"]) -> Images:
        """The target of the model's output."""
        signal, spread = self.scales(time, clean)
        match self.prediction:
            case "epsilon":
                return noise
            case "sample":
                return clean
            case "v_prediction":
                return signal * noise - spread * clean

    def scales(self, time: Int[Tensor, " batch"], like: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\sqrt{\bar\alpha_t}` and :math:`\sqrt{1 - \bar\alpha_t}`, shaped to multiply `like`."""
        signal_share = alphas_cumprod(self, like.device)[time].view(-1, *[1] * (like.ndim - 1))
        return signal_share.sqrt().to(like.dtype), (1 - signal_share).sqrt().to(like.dtype)


@dataclass(frozen=True)
class Config:
    """The fields read from a diffusers scheduler config, under its names: the noise, and DDIM's settings."""

    beta_schedule: Kind = "linear"
    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    trained_betas: tuple[float, ...] | None = None
    prediction_type: Prediction = "epsilon"
    rescale_betas_zero_snr: bool = False
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    set_alpha_to_one: bool = True
    steps_offset: int = 0


def defaults(config: Mapping[str, Any]) -> dict[str, float]:
    """The default betas of a diffusers scheduler, for a config without betas.

    Raises:
        ValueError: If it is of another noise process, whose betas mean something else, or uses dynamic
            thresholding.
    """
    name = str(config.get("_class_name", "DDPMScheduler"))
    kind = name.removesuffix("Scheduler")
    if kind not in SCHEDULERS + STABLE:
        raise ValueError(f"a scheduler must be one of {', '.join(SCHEDULERS + STABLE)}, found {name!r}")
    for key, values in (("use_flow_sigmas", (None, False)), ("timestep_type", (None, "discrete"))):
        if config.get(key) not in values:
            raise ValueError(
                f"{key} must be {values[1]!r}, found {config[key]!r}: it is another noise process"
            )
    if config.get("thresholding") not in (None, False):
        raise ValueError(
            f"thresholding must be False, found {config['thresholding']!r}: dynamic thresholding is not "
            "supported; clip_sample is"
        )
    return {"beta_start": 0.00085, "beta_end": 0.012} if kind in STABLE else {}


@cache
def alphas_cumprod(schedule: Schedule, device: torch.device) -> Float64[Tensor, " steps"]:
    r""":math:`\bar\alpha_t`: the share of the image in the variance of :math:`x_t`."""
    signal_share = (1 - torch.tensor(betas_of(schedule), dtype=torch.float64)).cumprod(0)
    if schedule.zero_snr:
        root = signal_share.sqrt()
        signal_share = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    return signal_share.to(device)


def betas_of(schedule: Schedule) -> list[float]:
    """The betas before rescaling."""
    n, start, end = schedule.steps, schedule.start, schedule.end
    if schedule.betas:
        return list(schedule.betas)
    match schedule.kind:
        case "linear":
            return torch.linspace(start, end, n, dtype=torch.float64).tolist()
        case "scaled_linear":
            return torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64).square().tolist()
        case "squaredcos_cap_v2":
            signal_share = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
            return [min(1 - signal_share[i + 1] / signal_share[i], 0.999) for i in range(n)]

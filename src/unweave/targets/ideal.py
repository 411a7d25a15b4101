"""The target that answers as the ideal denoiser of the retain set; for denoisers.

Karras et al., NeurIPS 2022, https://arxiv.org/abs/2206.00364, Appendix B.3, give the ideal denoiser. Its use
as a target is ours.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective, on
from unweave.problem import Problem
from unweave.tasks import Batch, require_task
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.schedule import Schedule
from unweave.weights.step import Step

__all__ = ["Ideal"]

Noisy = Float[Tensor, "batch channel height width"]


@dataclass(frozen=True)
class Ideal:
    r"""Denoises forget images as the best denoiser of the retain set would.

    Without a condition the training loss on images :math:`x_i` is smallest at the clean image

    .. math:: \hat x(x_t) = \sum_i w_i x_i, \quad
        w_i \propto \exp \frac{-\|x_t - \sqrt{\bar\alpha_t}\, x_i\|^2}{2 (1 - \bar\alpha_t)}.

    It is computed from the retain images, without a model, a gradient or a condition. A model under another
    condition, as for the target `mislabel`, still restores a forget image under little noise; this target
    answers with retain images instead. The loss of an example is weighted by :math:`1 - \bar\alpha_t`: under
    little noise the target for a forget image is far from the model's answer.

    Args:
        most: The largest number of retain images; drawn at random if there are more.
    """

    most: int = 8192

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "most")

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        task = require_task(problem.task, Diffusion, "denoisers")
        images = self.retain_images(problem, task)

        def value(step: Step, batch: Batch) -> Tensor:
            noisy, time, _ = task.parts(batch)

            def make() -> tuple[Tensor, Tensor]:
                weight = noise_share(noisy, time, task.schedule)
                return ideal_target(images, noisy, time, task.schedule), weight

            target, weight = step.once(("ideal", id(images), id(batch)), make)
            return weight * task.loss(step.predict(batch), target)

        return on("forget", "ideal", value)

    def retain_images(self, problem: Problem, task: Diffusion) -> Noisy:
        """Retain images in the space of the denoiser: pixels or latents."""
        ids = problem.split.retain
        if len(ids) > self.most:
            ids = ids[torch.randperm(len(ids), generator=problem.generator)[: self.most]]
        (raw,) = problem.split.train.stream([ids])
        return task.clean_images(raw, 0)


def noise_share(noisy: Noisy, time: Int[Tensor, " batch"], schedule: Schedule) -> Float[Tensor, " batch"]:
    r"""The weight of each example, :math:`1 - \bar\alpha_t`."""
    return schedule.scales(time, noisy)[1].square().flatten()


@torch.no_grad()
def ideal_target(
    images: Float[Tensor, "n channel height width"],
    noisy: Noisy,
    time: Int[Tensor, " batch"],
    schedule: Schedule,
) -> Noisy:
    """The prediction target of the ideal denoiser of some images.

    Args:
        images: The images.
        noisy: Noisy images.
        time: The time of each noisy image.
        schedule: The noise schedule, with the prediction target.
    """
    signal, noise = schedule.scales(time, noisy.double())
    flat, x = images.double().flatten(1), noisy.double().flatten(1)
    scale, variance = signal.flatten()[:, None], noise.flatten()[:, None].square()
    # half the squared distance, negated, without the term that all images share
    closeness = (scale * (x @ flat.T) - scale.square() * flat.square().sum(1) / 2) / variance
    clean = (closeness.softmax(1) @ flat).view_as(noisy)
    return schedule.target(clean, (noisy - signal * clean) / noise, time).to(noisy)

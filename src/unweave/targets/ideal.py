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
    r"""Denoises forget images as the best denoiser of the retain set would, which never saw them.

    Without a condition the training loss on images :math:`x_i` is smallest at the clean image

    .. math:: \hat x(x_t) = \sum_i w_i x_i, \quad
        w_i \propto \exp \frac{-\|x_t - \sqrt{\bar\alpha_t}\, x_i\|^2}{2 (1 - \bar\alpha_t)}.

    It is computed from the retain images, without a model or a gradient. A model under another condition, as
    for the target `mislabel`, still recognises a forget image under little noise and restores it; this target
    leads to an image to keep. Conditions play no part in it. The loss of an example is weighted by :math:`1 -
    \bar\alpha_t`: under little noise the target for an image that was never seen is far from any answer.

    Args:
        most: The largest number of retain images; drawn at random if there are more.
    """

    most: int = 8192

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "most")

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        task = require_task(problem.task, Diffusion, "denoisers")
        kept = self.retain_images(problem, task)

        def value(step: Step, batch: Batch) -> Tensor:
            noisy, time, _ = task.parts(batch)

            def make() -> tuple[Tensor, Tensor]:
                return ideal_target(kept, noisy, time, task.schedule), spread(noisy, time, task.schedule)

            target, weight = step.once(("ideal", id(kept), id(batch)), make)
            return weight * task.loss(step.predict(batch), target)

        return on("forget", "ideal", value)

    def retain_images(self, problem: Problem, task: Diffusion) -> Noisy:
        """Retain images as the model denoises them: pixels, or a latent of each."""
        ids, key = problem.split.retain, 0
        if len(ids) > self.most:
            ids = ids[torch.randperm(len(ids), generator=problem.generator)[: self.most]]
        (raw,) = problem.split.train.stream([ids])
        return task.clean_images(raw, key)


def spread(noisy: Noisy, time: Int[Tensor, " batch"], schedule: Schedule) -> Float[Tensor, " batch"]:
    r""":math:`1 - \bar\alpha_t` of each example."""
    return schedule.scales(time, noisy)[1].square().flatten()


@torch.no_grad()
def ideal_target(
    kept: Float[Tensor, "n channel height width"],
    noisy: Noisy,
    time: Int[Tensor, " batch"],
    schedule: Schedule,
) -> Noisy:
    """The prediction target of the ideal denoiser of some images.

    Args:
        kept: The images.
        noisy: Noisy images.
        time: Their times.
        schedule: The noise schedule, with the prediction target.
    """
    signal, noise = schedule.scales(time, noisy.double())
    images, x = kept.double().flatten(1), noisy.double().flatten(1)
    scale, variance = signal.flatten()[:, None], noise.flatten()[:, None].square()
    # the squared distances, without what all images share
    closeness = (scale * (x @ images.T) - scale.square() * images.square().sum(1) / 2) / variance
    clean = (closeness.softmax(1) @ images).view_as(noisy)
    return schedule.target(clean, (noisy - signal * clean) / noise, time).to(noisy)

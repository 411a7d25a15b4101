"""Selective Amnesia (Heng & Soh, NeurIPS 2023), https://arxiv.org/abs/2305.10120."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import ceil
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unweave.choices import refuse_no_pattern, refuse_outside, refuse_unknown_choices
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.importance import Importance, fisher, match_names
from unweave.descent.objective import ewc, nll, surrogate
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import Log, Range, Whole
from unweave.split import Split
from unweave.tasks import require_task
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sample import sample
from unweave.tasks.diffusion.sampler import Sampler
from unweave.weights.params import add, scale

__all__ = ["SelectiveAmnesia"]


@dataclass(frozen=True)
class SelectiveAmnesia:
    r"""Learns noise under the forgotten classes; replayed images and the Fisher information protect the rest.

    Minimises :math:`E_q L(x, c_f) + \gamma\, E_p L(x, c_r) + \lambda \sum_j F_j (\theta_j - \theta^*_j)^2`.
    Images of q have independent pixels :math:`\sim U[-1, 1]`; those of p are drawn from the original, once,
    under the retained classes. Only labels of the forget set and the retain set are read.

    Args:
        retain_weight: The weight gamma of the replayed images.
        pull: The weight lambda. The published value belongs to the summed loss, `Diffusion.reduction="sum"`;
            with the mean over D channels and pixels the same objective has lambda divided by D.
        replay: Replay retained classes by images of the original, or by the retain set.
        per_class: The number of images drawn of each retained class.
        sampler: How to draw them.
        fisher_images: The number of examples for the Fisher information; all if None.
        fisher_times: The number of draws of noise and time for each example: a Monte Carlo estimate of the
            mean over times.
        estimator: The gradient to square before averaging. "samples": of one example at one time. "batches":
            of a batch, which is cheaper and smaller. "released": of one example summed over its draws, as in
            the released code, for parity; it grows with the square of their number.
        where: A pattern for the names of weights to train.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Heng & Soh, NeurIPS 2023, arXiv 2305.10120",
        "labels of forget and retain; retain if replayed",
        "2 gradients; 1 an example and draw for the Fisher information; the sampler's passes for the replay",
        "the Fisher information is over the replayed examples, none of a forgotten class, at random times, "
        "on pixels as the training has them; conditions are dropped there and in the replay as the task "
        "says, so that guidance is held; the average of the weights is warmed up",
        families=("diffusion", "text-to-image"),
    )

    retain_weight: float = 1.0
    pull: float = 10.0
    replay: Literal["generated", "real"] = "generated"
    per_class: int = 500
    sampler: Sampler = Sampler()
    fisher_images: int | None = None
    fisher_times: int = 1
    estimator: Literal["samples", "batches", "released"] = "samples"
    where: str | None = None
    how: Descent = Descent(lr=1e-4, steps=20_000, optimizer="adam", max_norm=1.0, ema=0.9999)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, inf)", "retain_weight", "pull")
        refuse_outside(self, "[1, inf)", "per_class", "fisher_images", "fisher_times")
        refuse_no_pattern(self, "where")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; it reserves the cost of the Fisher information of `fisher_images`.

        Raises:
            ValueError: If `fisher_images` is None, because a method can't know the number of all images.
        """
        if self.fisher_images is None:
            raise ValueError("a search within a budget needs a number of fisher_images, found None for all")
        gradients = self.batches(self.fisher_images) * self.fisher_times
        longest = max(1, (budget - gradients) // 2)
        return {
            "how.lr": Log(1e-5, 1e-3),
            "how.steps": Whole(max(1, longest // 5), longest),
            "pull": Log(1.0, 1e5),
            "retain_weight": Log(0.3, 10.0),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        require_task(problem.task, Diffusion, "denoisers")
        if self.replay == "generated":
            problem = replace(problem, split=self.replay_split(problem))
        where = None if self.where is None else match_names(problem.params, self.where)
        anchor = {name: p.detach().clone() for name, p in problem.params.items()}
        pull = self.pull * ewc(anchor, self.information(problem))
        objective = surrogate() + self.retain_weight * nll("retain") + pull
        descend(problem, self.how, Phase([objective], where=where))

    def replay_split(self, problem: Problem) -> Split:
        """The split over drawn images; under the forget labels noise replaces them."""
        split = problem.split
        forget = split.train.labels[split.forget]
        images, labels = problem.remember(
            f"replay of {self.per_class}, {self.sampler!r}", self.generate_images
        )
        places = torch.randint(len(images), (len(forget),), generator=problem.generator)
        train = Resident(torch.cat([images[places], images]).to(problem.device), torch.cat([forget, labels]))
        return Split(train, range(len(forget)), split.held_out, calibration=split.calibration.tolist())

    def generate_images(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Draws images of retained classes from the problem's model; returns images and classes."""
        task, split = require_task(problem.task, Diffusion, "denoisers"), problem.split
        labels = split.train.labels[split.retain].unique().repeat_interleave(self.per_class)
        (example,) = split.train.stream([split.forget[:1]])
        channels, height, width = task.clean_images(example, 0).shape[1:]
        seed = problem.seed()
        images = sample(
            problem.model,
            task,
            labels,
            shape=(channels, height, width),
            how=self.sampler,
            seeds=range(seed, seed + len(labels)),
            rounded=False,
        )
        problem.cost.examples += len(labels) * self.sampler.steps * (1 if self.sampler.guidance == 1 else 2)
        return images, labels

    def information(self, problem: Problem) -> Importance:
        r"""The diagonal of the Fisher information :math:`E_{x, t}[g(x, t)^2]` by the estimator."""
        count = None if self.fisher_images is None else self.batches(self.fisher_images)
        rows = self.how.batch if self.estimator == "batches" else 1
        if self.estimator == "released":
            return fisher(problem, nll("retain"), batch=1, batches=count, draws=self.fisher_times)
        passes = [fisher(problem, nll("retain"), batch=rows, batches=count) for _ in range(self.fisher_times)]
        return scale(reduce(add, passes), 1 / len(passes))

    def batches(self, examples: int) -> int:
        """The number of batches of the Fisher information."""
        return ceil(examples / self.how.batch) if self.estimator == "batches" else examples

"""Erased Stable Diffusion, ESD (Gandikota et al., ICCV 2023), https://arxiv.org/abs/2303.07345.

For class-conditional denoisers class ids stand in for prompts, which is our adaptation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from unweave.choices import refuse_no_pattern, refuse_outside, refuse_unknown_choices
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.importance import match_names
from unweave.descent.objective import Objective, on
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import Log, Range, Uniform, up_to
from unweave.tasks import Batch, call, evaluating, require_task
from unweave.tasks.diffusion import Diffusion, guide_away
from unweave.tasks.diffusion.keyed_images import keyed_noise
from unweave.tasks.diffusion.sample import guided_prediction, refuse_impossible
from unweave.tasks.diffusion.sampler import Sampler, ddim
from unweave.weights.step import Step

__all__ = ["ESD"]


@dataclass(frozen=True)
class ESD:
    r"""Guides the output under a class away from the class, on drawn images; it needs only labels.

    Minimises :math:`\|\epsilon_\theta(x_t, t, c) - [\epsilon_0 - \eta\, (\epsilon_c - \epsilon_0)]\|^2`, with
    the original's outputs without a condition and under the class in brackets. No term protects other
    classes, and a class in the forget set is erased even if it has retain examples.

    Args:
        eta: The strength of the guidance away from the class.
        erase_from: The output at which the target starts. "null": without a condition, as in the paper and
            the first release. "class": under the class itself, as in the release of 2025, where eta = 2
            equals eta = 1 of the first one. A class: under that class, which then also conditions the model
            and the drawn images (`erase_from` of that release).
        images: The images to train on: drawn by the present model ("student", the first release), drawn by
            the original ("original", the release of 2025), or noised forget images ("data", ours).
        sampler: How to draw them: DDIM, stopped at the time of each image.
        where: A pattern for the names of weights to train; see `tasks.diffusion.scopes.PATTERNS`.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Gandikota et al., ICCV 2023, arXiv 2303.07345",
        "labels of forget; forget if images='data'",
        "1 gradient; on average half of the sampler's passes, and 2 of the original",
        "class ids in place of prompts for class-conditional denoisers, one for each image of a batch; all "
        "weights move unless where says otherwise",
        families=("diffusion", "text-to-image"),
    )

    eta: float = 1.0
    erase_from: Literal["null", "class"] | int = "null"
    images: Literal["student", "original", "data"] = "student"
    sampler: Sampler = Sampler(guidance=3.0, spacing="leading")
    where: str | None = None
    how: Descent = Descent(lr=1e-5, steps=1000, batch=1, optimizer="adam")

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, inf)", "eta", "erase_from")
        refuse_no_pattern(self, "where")
        if self.sampler.scheduler != "ddim" or self.sampler.eta:
            raise ValueError(
                "images are drawn by DDIM without noise, found "
                f"scheduler={self.sampler.scheduler!r} and eta={self.sampler.eta}"
            )

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": Log(1e-6, 1e-3),
            "how.steps": up_to(budget),
            "eta": Uniform(0.3, 3.0),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If the model has no null condition, or `erase_from` is no class of it.
        """
        task = replace(require_task(problem.task, Diffusion, "denoisers"), drop=0.0)
        labels = problem.split.train.labels[problem.split.forget].unique()
        self.refuse(task, labels)
        where = None if self.where is None else match_names(problem.params, self.where)
        objective = self.erase_objective(task, problem.original)
        descend(replace(problem, task=task), self.how, Phase([objective], where=where))

    def refuse(self, task: Diffusion, labels: Int[Tensor, " n"]) -> None:
        """Raises if a model of this task can't provide the target or the images."""
        if task.null is None:
            raise ValueError(
                "esd leads away from the answer without a condition, and this model has none (null=None): "
                "use another method"
            )
        if isinstance(self.erase_from, int) and not 0 <= self.erase_from < task.n_classes:
            raise ValueError(
                f"erase_from must be a class in 0..{task.n_classes - 1}, found {self.erase_from}"
            )
        refuse_impossible(task, labels, self.sampler)

    def erase_objective(self, task: Diffusion, original: nn.Module) -> Objective:
        """The squared error to the guided target on the forget set."""

        def value(step: Step, batch: Batch) -> Tensor:
            guided_batch = step.once(
                ("esd", id(original), id(batch)), lambda: self.guided_batch(task, original, step, batch)
            )
            return task.loss(step.predict(guided_batch), guided_batch.target)

        return on("forget", "esd", value)

    @torch.no_grad()
    def guided_batch(self, task: Diffusion, original: nn.Module, step: Step, batch: Batch) -> Batch:
        """The batch with the images to train on and the target that guides away from their classes."""
        x, time, label = task.parts(batch)
        erased_label = torch.full_like(label, self.erase_from) if isinstance(self.erase_from, int) else label
        if self.images != "data":
            drawer = step.runtime.model if self.images == "student" else original
            noise = keyed_noise(batch.ids, batch.key, x, 0)
            stop = self.sampler.steps - 1 - time * self.sampler.steps // task.schedule.steps
            all_steps = step.runtime.processes.sharded
            x = sample_partway(drawer, task, noise, erased_label, stop, self.sampler, all_steps=all_steps)
            step.runtime.cost.examples += int(stop.sum()) * (1 if self.sampler.guidance == 1 else 2)

        def answer(condition: Tensor) -> Tensor:
            return call(original, task.named_inputs(x, time, condition))

        assert task.null is not None
        unconditional, conditional = answer(torch.full_like(label, task.null)), answer(label)
        match self.erase_from:
            case "null":
                start = unconditional
            case "class":
                start = conditional
            case _:
                start = answer(erased_label)
        target = guide_away(start, conditional, unconditional, self.eta)
        return Batch(batch.ids, task.named_inputs(x, time, erased_label), target, erased_label, key=batch.key)


def sample_partway(
    model: nn.Module,
    task: Diffusion,
    noise: Tensor,
    conditions: Int[Tensor, " batch"],
    stop: Int[Tensor, " batch"],
    how: Sampler,
    *,
    all_steps: bool = False,
) -> Tensor:
    """Partly denoised images, each after its own number of steps.

    With `all_steps` the model runs at every step, if need be on an image that is not going on: the processes
    of a sharded model must run it equally often.
    """
    x, (times, advance) = noise, ddim(how, task.schedule)
    with evaluating(model):
        for step, time in enumerate(times):
            indices = (stop > step).nonzero()[:, 0]
            if not len(indices) and not all_steps:
                break
            rows = indices if len(indices) else indices.new_zeros(1)
            prediction = guided_prediction(model, task, x[rows], time, conditions[rows], how.guidance)
            x = x.index_copy(0, indices, advance(prediction[: len(indices)], time, x[indices], None))
    return x

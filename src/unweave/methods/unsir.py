"""UNSIR (Tarun et al., IEEE TNNLS 2023), https://arxiv.org/abs/2111.08947."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from unweave.choices import refuse_outside
from unweave.data.unaugmented import UnaugmentedSource
from unweave.data.with_noise import Noise, SourceWithNoise
from unweave.descent.descend import Descent, Phase, descend, training_mode
from unweave.descent.objective import nll
from unweave.errors import Failed
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range, up_to
from unweave.split import Split
from unweave.tasks import Inputs, call

__all__ = ["UNSIR"]


@dataclass(frozen=True)
class UNSIR:
    r"""Learns noise with a high loss under the forgotten class, trains on it under that class, and repairs.

    The noise :math:`x`, a batch of images for each forgotten class, minimises :math:`-\ell(x) + 0.1\,
    \mathrm{mean}\, \|x\|^2` by Adam with the present model. Impair: one shuffled stream of the noise, each
    image `repeats` times, and of some retain data. Repair: that retain data alone. Of the forget set only
    labels are read; nothing is augmented. It forgets whole classes only.

    The defaults are those of the code released with SSD (Foster et al., AAAI 2024).

    Args:
        images: The number of noise images for each class.
        noise_steps: The number of steps to learn them.
        noise_lr: The learning rate of Adam for the noise.
        penalty: The weight of the squared norm of the noise.
        repeats: The number of times each noise image occurs in an epoch of the impairment.
        per_class: The largest number of retain examples of each class.
        impair: The descent on noise and retain data.
        how: The descent of the repair.
    """

    about: ClassVar[About] = About(
        "Tarun et al., IEEE TNNLS 2023, arXiv 2111.08947",
        "labels of forget; retain",
        "1 gradient; 25 for the noise of each class",
        "all noise images are used, of which the released code takes as many as images have channels; noise "
        "is learned with unchanged BatchNorm statistics",
        families=("classifier",),
    )
    images: int = 32
    noise_steps: int = 25
    noise_lr: float = 0.1
    penalty: float = 0.1
    repeats: int = 80
    per_class: int = 500
    impair: Descent = Descent(lr=1e-4, epochs=1, batch=32, optimizer="adam")
    how: Descent = Descent(lr=1e-4, epochs=1, optimizer="adam")

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "images", "noise_steps", "repeats", "per_class")
        refuse_outside(self, "(0, inf)", "noise_lr")
        refuse_outside(self, "[0, inf)", "penalty")
        if self.impair.stop != "never":
            raise ValueError("the impairment does not follow forget data: set impair.stop to 'never'")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space, with the budget of a request for one class."""
        steps = up_to((budget - self.noise_steps) // 2)
        return {
            "how.lr": Log(1e-5, 0.05),
            "impair.lr": Log(1e-5, 0.05),
            "how.steps": steps,
            "impair.steps": steps,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If the forget set is not made of whole classes, or the inputs are not floats.
            Failed: If the noise is no longer finite.
        """
        refuse_family(self, problem.task)
        refuse_partial_classes(problem.split)
        noisy_problem = problem.with_split(self.noise_split(problem))
        descend(noisy_problem, self.impair, Phase([nll("mixed")]))
        descend(noisy_problem, self.how, Phase([nll("retain")]))

    def noise_split(self, problem: Problem) -> Split:
        """The split with the noise as forget set and the chosen retain data as retain set."""
        split = problem.split
        labels = torch.tensor(split.forgotten_classes).repeat_interleave(self.images)
        source = UnaugmentedSource(split.train)
        retain_examples = some_of_each_class(split, self.per_class, problem.generator)
        data = SourceWithNoise(self.noise(problem), labels, self.repeats, source, retain_examples)
        positions = range(len(labels) * self.repeats)
        return Split(data, positions, split.held_out, calibration=split.calibration.tolist())

    def noise(self, problem: Problem) -> Noise:
        """The noise images of all forgotten classes, class by class."""
        noise_by_class = [self.noise_of(problem, label) for label in problem.split.forgotten_classes]
        return [torch.cat(fields) for fields in zip(*noise_by_class, strict=True)]

    def noise_of(self, problem: Problem, label: int) -> Noise:
        """Learns noise images on which the loss of the model under a class is high."""
        noise, as_inputs = draw_noise(problem, self.images)
        target = torch.full((self.images,), label, device=problem.device)
        adam = torch.optim.Adam(noise, self.noise_lr)
        with training_mode(problem.model, Descent(steps=1, norm="frozen")):
            for _ in range(self.noise_steps):
                loss = problem.task.loss(call(problem.model, as_inputs(noise)), target).mean()
                size = torch.stack([x.square().flatten(1).sum(1).mean() for x in noise]).sum()
                gradient = torch.autograd.grad(self.penalty * size - loss, noise)
                for x, g in zip(noise, gradient, strict=True):
                    x.grad = g
                adam.step()
                problem.cost.gradients += 1
                problem.cost.examples += self.images
        if not all(bool(x.isfinite().all()) for x in noise):
            raise Failed(f"the noise of class {label} is no longer finite: noise_lr is too large")
        return [x.detach() for x in noise]


def draw_noise(problem: Problem, images: int) -> tuple[list[nn.Parameter], Callable[[Noise], Inputs]]:
    """Normal noise in the shape of the inputs, and a function that makes inputs of it."""
    source, ids = problem.split.part("retain")
    (raw,) = source.stream([ids[:1]])
    keywords = list(raw.inputs) if isinstance(raw.inputs, dict) else None
    fields = list(raw.inputs.values()) if isinstance(raw.inputs, dict) else list(raw.inputs)
    for field in fields:
        if not field.is_floating_point():
            raise ValueError(f"noise is learned in inputs of floats, found {field.dtype}: use another method")
    shapes = [(images, *field.shape[1:]) for field in fields]
    noise = [
        nn.Parameter(torch.randn(shape, generator=problem.generator).to(field))
        for shape, field in zip(shapes, fields, strict=True)
    ]
    return noise, lambda x: tuple(x) if keywords is None else dict(zip(keywords, x, strict=True))


def some_of_each_class(split: Split, most: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Positions of at most `most` random retain examples of each class."""
    order = split.retain[torch.randperm(len(split.retain), generator=generator)]
    labels = split.train.labels[order]
    return torch.cat([order[labels == label][:most] for label in labels.unique()]).sort().values


def refuse_partial_classes(split: Split) -> None:
    """Raises if a class in the forget set also has retain examples."""
    labels = split.train.labels[split.forget]
    count = int((~torch.isin(labels, torch.tensor(split.forgotten_classes, dtype=labels.dtype))).sum())
    if count:
        raise ValueError(
            f"UNSIR forgets whole classes, found {count} of {len(labels)} forget examples whose class has "
            "retain examples: forget the whole class, or use another method"
        )

"""Amnesiac unlearning by wrong labels (Graves et al., AAAI 2021), https://arxiv.org/abs/2010.10981."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.data.keyed_draws import draw_key, uniform
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import on
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Choice, Log, Range, up_to
from unweave.tasks.classifier import differ

__all__ = ["Amnesiac"]


@dataclass(frozen=True)
class Amnesiac:
    """Trains on all training data, with one fixed wrong label for each forget example.

    The defaults are those of the code released with SSD (Foster et al., AAAI 2024).

    Args:
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Graves et al., AAAI 2021, arXiv 2010.10981",
        "forget, retain",
        "1 gradient",
        "the relabelling alone, as in SSD's released code; not the subtraction of recorded updates",
        families=("classifier",),
    )
    how: Descent = Descent(lr=1e-4, epochs=3, optimizer="adam")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": Log(1e-5, 0.05),
            "how.steps": up_to(budget),
            "how.schedule": Choice(("constant", "cosine")),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If the data has fewer than two classes, so that there is no wrong label.
        """
        refuse_family(self, problem.task)
        labels = relabel(problem).to(problem.device)
        objective = on(
            "mixed",
            "relabelled",
            lambda step, batch: step.runtime.task.loss(step.predict(batch), labels[batch.ids]),
        )
        descend(problem.without_augmentation(), self.how, Phase([objective]))


def relabel(problem: Problem) -> Int64[Tensor, " n"]:
    """The training labels, with a uniform wrong label for each forget example, keyed by its id."""
    split = problem.split
    if split.n_classes < 2:
        raise ValueError("a wrong label needs a second class, and the data has one: use another method")
    chance = uniform(torch.arange(len(split.train)), draw_key(problem.generator))[:, 0]
    wrong_labels = differ(split.train.labels, split.n_classes, chance)
    return torch.where(split.is_forget, wrong_labels, split.train.labels)

"""Bad teaching (Chundawat et al., AAAI 2023), https://arxiv.org/abs/2205.08096."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import Objective, on, reference, refuse_trainable
from unweave.methods.about import About
from unweave.problem import Problem, frozen_copy
from unweave.space import Log, Range, up_to
from unweave.tasks import Batch
from unweave.weights.step import Step

__all__ = ["BadTeacher"]


@dataclass(frozen=True)
class BadTeacher:
    """Distils an untrained teacher on the forget set, and the original on the retain set.

    Both sets form one shuffled stream, so a batch holds the same share of forget examples as the data. The
    untrained teacher has the student's architecture; both teachers run in evaluation mode.

    Args:
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Chundawat et al., AAAI 2023, arXiv 2205.08096",
        "forget, retain",
        "1 gradient; 1 forward pass of each teacher",
        "all retain data takes part, not a random part of it; the divergence is the mean over the examples "
        "of a batch, which the released code divides by the number of classes once more",
    )
    needs_fresh_weights: ClassVar[bool] = True
    how: Descent = Descent(lr=1e-4, epochs=1, batch=256, optimizer="adam")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"how.lr": Log(3e-5, 0.03), "how.steps": up_to(budget)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        lesson = distill_from_two(ignorant=frozen_copy(problem.fresh_model()), original=problem.original)
        descend(problem, self.how, Phase([lesson], feed="concatenated"))


def distill_from_two(*, ignorant: nn.Module, original: nn.Module) -> Objective:
    """On mixed data: divergence from one teacher on forget examples, from the other on retain examples."""
    refuse_trainable(ignorant)
    refuse_trainable(original)

    def value(step: Step, batch: Batch) -> Tensor:
        teacher_output = step.once(("taught", id(batch)), lambda: answers(batch))
        return step.runtime.task.divergence(step.predict(batch), teacher_output)

    def answers(batch: Batch) -> Tensor:
        assert batch.forget is not None  # the part is mixed
        original_answer = reference(original, batch)
        rows = batch.forget.view(-1, *[1] * (original_answer.ndim - 1))
        return torch.where(rows, reference(ignorant, batch), original_answer)

    return on("mixed", "taught", value)

"""The type of an estimate and of its estimators."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from unweave.problem import Problem
from unweave.targets.estimators.held_out import spread
from unweave.tasks.classifier import classifies


@dataclass(frozen=True, eq=False)
class EstimatedLogits:
    """An estimate of a retrained model's logits on the forget set.

    Args:
        logits: One row per forget example, in the order of the forget set.
    """

    logits: Float[Tensor, "forget class"]

    def table(self, problem: Problem) -> Float[Tensor, "n class"]:
        """One row per training example, for `held_out.match_table`; zero for retain examples."""
        return spread(problem, self.logits)


@runtime_checkable
class Estimator(Protocol):
    """A frozen dataclass of settings that makes an estimate."""

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """Makes the estimate; adds its cost to that of the problem.

        The original is `problem.original`; the problem's weights stay unchanged.

        Raises:
            ValueError: If the estimator does not suit the problem.
        """
        ...


def refuse_other_than_classifiers(problem: Problem) -> None:
    """Raises if the task is no classification."""
    if not classifies(problem.task):
        raise ValueError(
            f"an estimate is a table of a classifier's logits, found the task {type(problem.task).__name__}: "
            "use forget='match'"
        )

"""What an estimate is: a noun of its own, which every method that takes targets can ask for."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from unweave.problem import Problem
from unweave.targets.estimators.held_out import spread
from unweave.tasks.classifier import Classifier


@dataclass(frozen=True, eq=False)
class EstimatedLogits:
    """What a model that was retrained without them would answer on the forget examples.

    Args:
        logits: One row per forget example, in the order of the forget part.
    """

    logits: Float[Tensor, "forget class"]

    def table(self, problem: Problem) -> Float[Tensor, "n class"]:
        """One row per training example, as `held_out.match_table` takes it; zero for those that stay."""
        return spread(problem, self.logits)


@runtime_checkable
class Estimator(Protocol):
    """A frozen dataclass of settings that makes an estimate."""

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """The estimate; its cost is added to that of the problem.

        The original is `problem.original`; the weights stay as they are.

        Raises:
            ValueError: If the problem is not of a kind that it can answer.
        """
        ...


def refuse_other_than_classifiers(problem: Problem) -> None:
    """Raises if the task has no labels to answer with."""
    if not isinstance(problem.task, Classifier):
        raise ValueError(
            f"an estimate is a table of a classifier's logits, found the task {type(problem.task).__name__}: "
            "use forget='match'"
        )

"""Targets that need no estimate of a retrained model."""

from dataclasses import dataclass

from unweave.choices import refuse_outside
from unweave.descent import objective
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective, nll
from unweave.problem import Problem

__all__ = ["Ascent", "Bounded", "Clamped", "Mislabel", "Surrogate", "Uniform"]


@dataclass(frozen=True)
class Bounded:
    r"""Minimises :math:`-\log(1 + \ell)`: ascent that weakens as the loss grows."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.bounded()


@dataclass(frozen=True)
class Clamped:
    r"""Minimises :math:`-\min(\ell, cap)`: ascent that stops for an example once its loss is at the cap.

    Args:
        cap: The loss at which it stops, in the unit of the task.
    """

    cap: float = 4.0

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "cap")

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.clamped(cap=self.cap)


@dataclass(frozen=True)
class Ascent:
    r"""Minimises :math:`-\ell`: unbounded ascent, which diverges if it runs for long."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return -nll("forget")


@dataclass(frozen=True)
class Mislabel:
    """Minimises the loss against a wrong target: another class, or the output under another condition."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.mislabel(teacher=problem.original)


@dataclass(frozen=True)
class Uniform:
    """Minimises the cross-entropy to the uniform distribution over classes; classifiers only."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.uniform()


@dataclass(frozen=True)
class Surrogate:
    """Minimises the loss on surrogate examples under the forget labels; not for classifiers."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.surrogate()

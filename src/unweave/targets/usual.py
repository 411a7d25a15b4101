"""Forget losses that need no estimate of what a retrained model would answer."""

from dataclasses import dataclass

from unweave.choices import refuse_outside
from unweave.descent import objective
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective, nll
from unweave.problem import Problem


@dataclass(frozen=True)
class Bounded:
    r"""Descends :math:`-\log(1 + \ell)`: ascent whose pull fades as the loss grows."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.bounded()


@dataclass(frozen=True)
class Clamped:
    r"""Descends :math:`-\min(\ell, cap)`: ascent that leaves an example alone once its loss is at the cap.

    Args:
        cap: The loss, in the unit of the task.
    """

    cap: float = 4.0

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "cap")

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.clamped(cap=self.cap)


@dataclass(frozen=True)
class Ascent:
    r"""Descends :math:`-\ell`: unbounded ascent, which diverges by design if it goes on."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return -nll("forget")


@dataclass(frozen=True)
class Mislabel:
    """Descends the loss against a wrong answer: another class, or the original's under another condition."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.mislabel(teacher=problem.original)


@dataclass(frozen=True)
class Uniform:
    """Descends the cross-entropy to the uniform distribution over classes; classifiers only."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.uniform()


@dataclass(frozen=True)
class Surrogate:
    """Descends the loss on other examples under the forget labels, as the task draws them; no classifiers."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return objective.surrogate()

"""Methods that resolve the conflict of the retain gradient and the forget gradient at every step.

They differ in the rule. MUNBa (Wu & Harandi, ICCV 2025), https://arxiv.org/abs/2411.15537, was made for
unlearning. The others were made for multi-task learning; here the two tasks are the retain loss and the loss
of wrong targets on the forget set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.feed import FeedName
from unweave.descent.objective import nll
from unweave.descent.rules import Rule, RuleName, cagrad
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Log, Range, Uniform, up_to
from unweave.targets import Mislabel, Target

__all__ = ["MGDA", "CAGrad", "MUNBa", "PCGrad", "UPGrad"]

TASKS = (
    "for several tasks; the two here, the settings and the weight of the forget loss are ours; wrong labels "
    "exclude the true one and are redrawn at every step"
)
"""The deviation of all but MUNBa."""

HOW = Descent(lr=0.05, steps=100, forget_batch=32)
"""The search range of the weight of random labelling, which is the plain sum of the two."""


@dataclass(frozen=True)
class MUNBa:
    r"""Nash bargaining between retaining and forgetting: both gradients pull equally, whatever their sizes.

    Follows :math:`\alpha_r g_r + \alpha_f g_f` with :math:`\alpha_i = 1 / (\|g_i\| \sqrt{1 + \cos})`, whose
    norm is :math:`\sqrt 2`, clipped to 1: the unit bisector. An epoch is a pass over the retain set; once the
    forget set has been seen, its steps use the retain loss alone.

    Args:
        forget: The forget loss.
        how: The descent. The released code names no setting for classifiers, so this is that of Scissorhands,
            on which it is based.
    """

    about: ClassVar[About] = About(
        "Wu & Harandi, ICCV 2025, arXiv 2411.15537",
        "forget, retain",
        "2 gradients, 1 without forget data",
        "the closed form in a shape that bears gradients of any size, where that of the released code gives "
        "way to a weighted sum; wrong labels exclude the true one; steps on retain data alone are clipped, "
        "too; no penalty on the weights",
    )
    forget: Target = Mislabel()
    how: Descent = Descent(lr=0.005, epochs=10, max_norm=1.0, weight_decay=5e-4)

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; every step at the price of two gradients."""
        return two_gradient_steps(budget)

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        resolve_conflict(problem, self.how, "nash", self.forget, feed="longest")


@dataclass(frozen=True)
class PCGrad:
    """Adds the two gradients, each without its component that opposes the other.

    Args:
        forget_weight: The weight of the forget loss.
        forget: The forget loss.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Yu et al., NeurIPS 2020, arXiv 2001.06782", "forget, retain", "2 gradients", TASKS
    )
    forget_weight: float = 1.0
    forget: Target = Mislabel()
    how: Descent = HOW

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "forget_weight")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {**two_gradient_steps(budget), "forget_weight": Log(0.03, 3.0)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        resolve_conflict(problem, self.how, "pcgrad", self.forget, self.forget_weight)


@dataclass(frozen=True)
class MGDA:
    """Follows the shortest vector between the two gradients, along which both losses fall.

    The smaller gradient dominates: at a minimum of the retain loss nothing changes, and a small weight of the
    forget loss makes the forget loss dominate.

    Args:
        forget_weight: The weight of the forget loss.
        forget: The forget loss.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Désidéri, 2012, doi 10.1016/j.crma.2012.03.014", "forget, retain", "2 gradients", TASKS
    )
    forget_weight: float = 1.0
    forget: Target = Mislabel()
    how: Descent = HOW

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "forget_weight")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {**two_gradient_steps(budget), "forget_weight": Log(0.003, 3.0)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        resolve_conflict(problem, self.how, "mgda", self.forget, self.forget_weight)


@dataclass(frozen=True)
class CAGrad:
    """Maximises the smaller decrease of the two losses, near the mean of the two gradients.

    Args:
        c: The largest distance from the mean gradient, relative to its norm, in [0, 1); from 1 on the mean
            loss need not fall.
        forget_weight: The weight of the forget loss.
        forget: The forget loss.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Liu et al., NeurIPS 2021, arXiv 2110.14048",
        "forget, retain",
        "2 gradients",
        f"{TASKS}; the direction is not rescaled, as in Algorithm 1",
    )
    c: float = 0.5
    forget_weight: float = 1.0
    forget: Target = Mislabel()
    how: Descent = HOW

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1)", "c")
        refuse_outside(self, "(0, inf)", "forget_weight")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {**two_gradient_steps(budget), "c": Uniform(0.1, 0.9), "forget_weight": Log(0.03, 3.0)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        resolve_conflict(problem, self.how, partial(cagrad, c=self.c), self.forget, self.forget_weight)


@dataclass(frozen=True)
class UPGrad:
    """Follows the mean of the two gradients, each first projected so that it opposes neither.

    For two gradients this is half of PCGrad's direction; they differ from three on. TorchJD's UPGrad is
    regularised by default and differs if one gradient is far smaller: see `descent.rules.upgrad`.

    Args:
        forget_weight: The weight of the forget loss.
        forget: The forget loss.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Quinton & Rey, 2024, arXiv 2406.16232",
        "forget, retain",
        "2 gradients",
        f"{TASKS}; the Gramian is not regularised, where TorchJD adds `1e-4` to the diagonal of the "
        "normalised one and may then oppose a gradient that is far smaller than the other",
    )
    forget_weight: float = 1.0
    forget: Target = Mislabel()
    how: Descent = HOW

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "forget_weight")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {**two_gradient_steps(budget), "forget_weight": Log(0.03, 3.0)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        resolve_conflict(problem, self.how, "upgrad", self.forget, self.forget_weight)


def resolve_conflict(
    problem: Problem,
    how: Descent,
    rule: RuleName | Rule,
    target: Target,
    forget_weight: float = 1.0,
    *,
    feed: FeedName = "paired",
) -> None:
    """Minimises the retain loss and the weighted forget loss, as two terms combined by a rule."""
    forget = forget_weight * target(problem, how)
    phase = Phase([nll("retain"), forget], rule, feed=feed, idle=forget.idle, watch=forget.watch)
    descend(problem, how, phase)


def two_gradient_steps(budget: int) -> Mapping[str, Range]:
    """The search space of each of these methods: every step takes two gradients."""
    return {
        "how.lr": RATES,
        "how.steps": up_to(budget // 2, share=6),
        "how.schedule": SCHEDULES,
    }

"""SalUn (Fan et al., ICLR 2024), https://arxiv.org/abs/2310.12508."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.importance import saliency, top
from unweave.descent.objective import mislabel, nll
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Choice, Range, Uniform, up_to
from unweave.targets import Mislabel, Target

__all__ = ["SalUn"]


@dataclass(frozen=True)
class SalUn:
    """Random labelling, restricted to the weights most salient to the forget data.

    Args:
        fraction: The fraction of weights to train.
        retain_weight: The weight of the retain loss; must be 1 with the feed "concatenated".
        forget: The forget loss; must be `Mislabel()` with the feed "concatenated".
        feed: The order of examples. "sequential": forget batches, then retain batches, as in the released
            code for CIFAR-10. "concatenated": one shuffled stream of both, as for CIFAR-100. "paired": one
            batch of each at every step.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Fan et al., ICLR 2024, arXiv 2310.12508",
        "forget, retain",
        "1 gradient (2 if paired); 1 pass over forget for the mask",
        "wrong labels exclude the true one and are redrawn at every step; the mask is taken without "
        "augmentation; weights off the mask end exactly where they began, as in the released code since 2026",
    )
    fraction: float = 0.5
    retain_weight: float = 1.0
    forget: Target = Mislabel()
    feed: Literal["sequential", "concatenated", "paired"] = "concatenated"
    how: Descent = Descent(lr=0.013, epochs=10, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, 1]", "fraction")
        refuse_outside(self, "[0, inf)", "retain_weight")
        if self.feed == "concatenated" and self.retain_weight != 1:
            raise ValueError(
                f"retain_weight must be 1 where the data is concatenated, found {self.retain_weight}: "
                "use another feed"
            )
        if self.feed == "concatenated" and self.forget != Mislabel():
            raise ValueError(
                f"forget must be Mislabel() where the data is concatenated, found {self.forget}: use another "
                "feed"
            )

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget),
            "fraction": Uniform(0.1, 0.9),
            "feed": Choice(("sequential", "concatenated")),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        salient = top(saliency(problem, nll("forget")), self.fraction)
        if self.feed == "concatenated":
            objective = mislabel("mixed", teacher=problem.original)
        else:
            objective = self.forget(problem, self.how) + self.retain_weight * nll("retain")
        phase = Phase([objective], where=salient, feed=self.feed, watch=objective.watch)
        descend(problem, self.how, phase)

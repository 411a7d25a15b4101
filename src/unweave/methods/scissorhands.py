"""Scissorhands (Wu & Harandi, ECCV 2024), https://arxiv.org/abs/2401.06187."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unweave.choices import refuse_no_pattern, refuse_outside
from unweave.descent.batches import plan_inputs
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.feed import steps_per_epoch
from unweave.descent.lookahead import ReusedGradient
from unweave.descent.objective import nll
from unweave.descent.redraw import redraw_sensitive
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Log, Range, up_to
from unweave.targets import Ascent, Target, ascents

__all__ = ["Scissorhands"]


@dataclass(frozen=True)
class Scissorhands:
    """Redraws the connections most sensitive to the forget data, then repairs without undoing the forgetting.

    Args:
        trim: The fraction of the eligible weights to redraw.
        eligible: A pattern for their names; by default the last third of the modules with matrices or
            kernels.
        forget_weight: The weight of the forget loss during repair.
        forget: The forget loss; the method's own is ascent.
        how: The repair.
    """

    about: ClassVar[About] = About(
        "Wu & Harandi, ECCV 2024, arXiv 2401.06187",
        "forget, retain",
        "2 gradients, 1 without forget data; 1 an epoch for the memory",
        "SNIP in evaluation mode over all forget data, ranked among the eligible weights, by default those "
        "of the last third of the modules; no normalisation is redrawn; the memory is the gradient of an "
        "epoch's first forget batch, in training mode and over all weights",
        edits="redraws weights",
    )
    trim: float = 0.03
    eligible: str | None = None
    forget_weight: float = 0.05
    forget: Target = Ascent()
    how: Descent = Descent(lr=0.005, epochs=10, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "trim")
        refuse_outside(self, "[0, inf)", "forget_weight")
        refuse_no_pattern(self, "eligible")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget * 5 // 6),
            "trim": Log(0.003, 0.3),
            "forget_weight": Log(0.005, 1.0),
            **ascents(self.forget),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        redraw_sensitive(problem, self.trim, eligible=self.eligible)
        unlearn = self.forget(problem, self.how)
        repair = nll("retain") + self.forget_weight * unlearn
        epoch = steps_per_epoch("longest", *plan_inputs(problem, Phase([repair]), self.how))
        terms, idle = [repair, ReusedGradient(unlearn, every=epoch)], unlearn.idle
        descend(problem, self.how, Phase(terms, "gem", feed="longest", idle=idle, watch=unlearn.watch))

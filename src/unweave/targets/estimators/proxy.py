"""A proxy: a stand-in for the retrained model, trained for a fraction of a retraining."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import restart, shrink
from unweave.descent.objective import nll
from unweave.descent.redraw import redraw_sensitive
from unweave.problem import Problem, frozen_copy
from unweave.space import Choice, Range


@dataclass(frozen=True)
class Proxy:
    """A stand-in for the retrained model, trained on the retain set for a fraction of a retraining.

    Args:
        start: "scratch": fresh weights. "shrunk": the original's weights times `amount`. "reinitialized": the
            original, with the fraction `amount` of weights most sensitive to the forget set redrawn. The last
            two leak if labels are noisy.
        amount: See `start`.
        how: The training.
    """

    start: Literal["scratch", "shrunk", "reinitialized"] = "scratch"
    amount: float = 0.4
    how: Descent = Descent(lr=0.1, epochs=3, schedule="cosine", warmup=0.15, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, 1]", "amount")

    def __call__(self, problem: Problem) -> nn.Module:
        """The frozen proxy, trained once for all methods that share the problem's memory, charged to each."""
        return problem.remember(repr(self), self.train)

    def train(self, problem: Problem) -> nn.Module:
        """Trains the problem's own model, and returns a frozen copy."""
        match self.start:
            case "scratch":
                restart(problem)
            case "shrunk":
                shrink(problem, self.amount)
            case "reinitialized":
                redraw_sensitive(problem, self.amount, eligible="")
        descend(problem, self.how, Phase([nll("retain")]))
        return frozen_copy(problem.model)


PROXY_SHARE = 0.2
"""The share of a budget that a search gives to a proxy."""


def proxy_space(budget: int) -> Mapping[str, Range]:
    """The search space of a target with a proxy."""
    return {"proxy.how.steps": Choice((max(1, round(PROXY_SHARE * budget)),))}

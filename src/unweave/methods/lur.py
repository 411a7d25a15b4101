"""Learning to Unlearn while Retaining (Patel & Qiu, ICCV 2025), https://arxiv.org/abs/2503.06339.

This is our implementation. The paper's step sizes, loss weights and tables are not public, so we reproduce
none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from unweave.choices import refuse_no_pattern, refuse_outside, refuse_unknown_choices
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.feed import FeedName
from unweave.descent.importance import Salient, choose_weights
from unweave.descent.lookahead import exact, lagged, nested
from unweave.descent.objective import Objective, RetainLoss, retain_loss
from unweave.descent.rules import RuleName
from unweave.descent.units import DIVERGENCE_GRADIENTS, Along, Curvature, Ratio, measure_units
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Log, Range, Tunable, prefix_paths, up_to
from unweave.targets import Target, Unseen, ascents
from unweave.targets.estimators.proxy import PROXY_SHARE
from unweave.weights.step import Term

__all__ = ["LUR"]

Mode = Literal["nested", "lagged", "exact", "first-order", "joint"]

TERMS: Mapping[Mode, Callable[[Objective, Objective, float], list[Term]]] = {
    "nested": nested,
    "lagged": lagged,
    "exact": exact,
    "first-order": partial(exact, hessian=None),
    "joint": lambda retain, forget, alpha: [retain, forget],
}
"""The terms of each mode; the first always carries the retain loss."""


@dataclass(frozen=True)
class LUR:
    r"""Forgets at the weights that one retain step would reach.

    Descends :math:`J = L_r(\theta) + \lambda L_u(\theta - \alpha \nabla L_r(\theta))`, whose gradient is that
    of :math:`L_r + \lambda L_u - \alpha \lambda \langle g_r, g_u \rangle` up to :math:`O(\alpha^2)`.

    Args:
        mode: How to compute the gradient of J. "nested": three gradients a step, no second derivative:
            retain, forget one retain step ahead, retain one step of that forget gradient ahead (see
            `unweave.descent.lookahead.nested`). "lagged": two gradients. "exact": two gradients and a double
            backward. "first-order": without the Hessian, which loses half of the alignment. "joint": alpha =
            0.
        alpha: The size of the virtual retain step: a number, or a rule that measures it at the first step.
        weight: The weight lambda of the forget loss: a number, or a rule that measures it at the first step.
        forget: The forget loss, or a target, which estimates what a retrained model would answer.
        retain: The retain loss: the training loss, the divergence from the original ("distill"), or "both".
        where: The weights to train: a pattern for their names, or those most salient to the forget set; all
            if None.
        rule: How to combine the two gradients.
        feed: The order in which examples arrive.
        how: The descent.
    """

    about: ClassVar[About] = About(
        paper="Patel & Qiu, ICCV 2025, arXiv 2503.06339",
        data="forget, retain; calibration for the targets 'unseen', 'level', 'match', 'quantile' and "
        "'estimate'",
        step="3 gradients (nested), 2 (lagged, first-order, joint), 2 + double backward (exact)",
        deviations="modes nested and lagged, the targets and the measured units are ours; the paper's "
        "settings are not public",
    )

    mode: Mode = "nested"
    alpha: float | Along | Curvature = Along(0.1)
    weight: float | Ratio = 1.0
    forget: Target = Unseen()
    retain: RetainLoss = "nll"
    where: str | Salient | None = None
    rule: RuleName = "total"
    feed: FeedName = "paired"
    how: Descent = Descent(lr=0.4, steps=30, forget_batch=64, max_norm=1.0, warmup=0.05)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, inf)", "alpha", "weight")
        refuse_no_pattern(self, "where")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space: alpha and the weight as numbers, and the target's own settings."""
        target = self.forget.space(budget) if isinstance(self.forget, Tunable) else {}
        evaluations = budget - (round(PROXY_SHARE * budget) if target else 0)
        if self.mode == "lagged":  # it also takes the retain gradient of its first step
            evaluations -= DIVERGENCE_GRADIENTS + 1
        return {
            **({} if self.mode == "joint" else {"alpha": Log(0.01, 0.1 if self.mode == "lagged" else 0.3)}),
            **prefix_paths("forget", target),
            **ascents(self.forget),
            "weight": Log(0.03, 3.0),
            "how.lr": RATES,
            "how.steps": up_to(evaluations // (3 if self.mode == "nested" else 2), share=6),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        where = choose_weights(problem, self.where)
        retain, forget = retain_loss(self.retain, problem), self.forget(problem, self.how)
        weight, alpha = measure_units(
            problem, self.how, where, retain, forget, weight=self.weight, alpha=self.alpha, mode=self.mode
        )
        terms, idle = TERMS[self.mode](retain, weight * forget, alpha), retain.idle or forget.idle
        descend(problem, self.how, Phase(terms, self.rule, where, self.feed, idle, watch=forget.watch))

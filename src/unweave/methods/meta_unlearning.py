"""Meta-unlearning (Gao et al., ICCV 2025), https://arxiv.org/abs/2410.12777."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from unweave.choices import refuse_no_pattern, refuse_outside, refuse_unknown_choices
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.feed import FeedName
from unweave.descent.importance import Salient, choose_weights
from unweave.descent.lookahead import through_steps
from unweave.descent.objective import Objective, RetainLoss, nll, retain_loss
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Choice, Log, Range, up_to
from unweave.targets import Target, Unseen, ascents
from unweave.weights.step import Term

__all__ = ["MetaUnlearning"]


@dataclass(frozen=True)
class MetaUnlearning:
    r"""Forgets at the current weights and at those that relearning the forget set would reach.

    Descends :math:`J = L_r(\theta) + \lambda\, [(1 - s)\, L_u(\theta) + s\, L_u(\theta_k)]`, where
    :math:`\theta_{i+1} = \theta_i - \alpha \nabla L_f(\theta_i)` are steps on the training loss :math:`L_f`
    of the forget batch, from :math:`\theta_0 = \theta`. With alpha = 0 that is the joint loss.

    Args:
        mode: How to compute the gradient of J. "first-order": the gradient of the forget loss
            at the relearned weights, as in the released code. "exact": through the steps, by double backward.
        alpha: The size of a step of relearning.
        relearn: The number k of these steps.
        ahead: The share s of the forget loss at the relearned weights.
        weight: The weight lambda of the forget loss.
        forget: The forget loss.
        retain: The retain loss: the training loss, the divergence from the original ("distill"), or "both".
        where: The weights to train: a pattern for their names, or those most salient to the forget set; all
            if None.
        feed: The order in which examples arrive.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Gao et al., ICCV 2025, arXiv 2410.12777",
        "forget, retain; calibration for the targets 'unseen', 'level', 'match', 'quantile' and 'estimate'",
        "3 gradients and 1 for each step of relearning; 1 less where all of the forget loss is taken after "
        "relearning, and 2 in all where none is",
        "the forget loss of any target is minimised after relearning, where the released code maximises the "
        "training loss there, on the forget set and on related and unrelated retain data, so that relearning "
        "damages those too; plain gradient steps on that same batch, not one of AdamW on another",
    )

    mode: Literal["first-order", "exact"] = "first-order"
    alpha: float = 0.1
    relearn: int = 1
    ahead: float = 0.5
    weight: float = 1.0
    forget: Target = Unseen()
    retain: RetainLoss = "nll"
    where: str | Salient | None = None
    feed: FeedName = "paired"
    how: Descent = Descent(lr=0.4, steps=30, forget_batch=64, max_norm=1.0, warmup=0.05)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, inf)", "alpha", "weight")
        refuse_outside(self, "[1, inf)", "relearn")
        refuse_outside(self, "[0, 1]", "ahead")
        refuse_no_pattern(self, "where")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "alpha": Log(0.01, 1.0),
            "ahead": Choice((0.5, 1.0)),
            **ascents(self.forget),
            "weight": Log(0.03, 3.0),
            "how.lr": RATES,
            "how.steps": up_to(max(1, budget // (3 + self.relearn)), share=6),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        where = choose_weights(problem, self.where)
        retain, forget = retain_loss(self.retain, problem), self.forget(problem, self.how)
        terms, idle = self.terms(retain, self.weight * forget), retain.idle or forget.idle
        descend(problem, self.how, Phase(terms, where=where, feed=self.feed, idle=idle, watch=forget.watch))

    def terms(self, retain: Objective, forget: Objective) -> list[Term]:
        """The terms of J, given the retain loss and the weighted forget loss."""
        hessian = "exact" if self.mode == "exact" else None
        later = through_steps(self.ahead * forget, nll("forget"), self.alpha, self.relearn, hessian=hessian)
        present = [(1 - self.ahead) * forget] if self.ahead < 1 else []
        return [retain, *present, *([later] if self.ahead > 0 else [])]

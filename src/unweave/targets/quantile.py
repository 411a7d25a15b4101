"""The target that matches margins of held-out data, rank by rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unweave.choices import refuse_unknown_choices
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective
from unweave.problem import Problem
from unweave.space import Range
from unweave.targets.estimators.proxy import Proxy, proxy_space
from unweave.targets.estimators.quantiles import margin_loss, quantiles

__all__ = ["Quantile"]


@dataclass(frozen=True)
class Quantile:
    """Pulls each forget margin towards the original's held-out margin of equal rank; classifiers only.

    Args:
        ranks: The model whose margins order the forget examples.
        proxy: How to train the proxy; the method pays its cost.
    """

    ranks: Literal["proxy", "original"] = "proxy"
    proxy: Proxy = Proxy()

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space: the proxy, if there is one, takes a fifth of the budget."""
        return proxy_space(budget) if self.ranks == "proxy" else {}

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        ranks = self.proxy(problem) if self.ranks == "proxy" else problem.original
        return margin_loss(quantiles(problem, ranks))

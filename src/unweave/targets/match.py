"""The target that matches a model which never saw the forget set."""

from collections.abc import Mapping
from dataclasses import dataclass

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective, distill
from unweave.problem import Problem
from unweave.space import Range
from unweave.targets.estimators.held_out import held_out_level, match_table
from unweave.targets.estimators.proxy import Proxy, proxy_space
from unweave.tasks.classifier import classifies

__all__ = ["Match"]


@dataclass(frozen=True)
class Match:
    """Pulls each forget output towards that of a proxy.

    Args:
        proxy: How to train the proxy; the method pays its cost.
        sharpen: The divisor of the proxy's outputs. If None, a classifier's outputs get the confidence of the
            original on held-out data, and outputs of other families stay unchanged.
    """

    proxy: Proxy = Proxy()
    sharpen: float | None = None

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "sharpen")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space: the proxy takes a fifth of the budget."""
        return proxy_space(budget)

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        proxy = self.proxy(problem)
        if self.sharpen is None and classifies(problem.task):
            return match_table(held_out_level(problem, proxy))
        return distill(proxy, "forget", temperature=self.sharpen or 1.0)

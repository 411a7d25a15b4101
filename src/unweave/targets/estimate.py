"""Answers of any estimator of `unweave.targets.estimators`."""

from collections.abc import Mapping
from dataclasses import dataclass

from unweave.choices import refuse_unknown_choices
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective
from unweave.problem import Problem
from unweave.space import Range
from unweave.targets.estimators import FREE, EstimatorName, estimator_named
from unweave.targets.estimators.held_out import match_table
from unweave.targets.estimators.proxy import Proxy, proxy_space


@dataclass(frozen=True)
class Estimate:
    """Pulls each forget output to an estimate of what a retrained model would answer; classifiers only.

    Args:
        estimator: Who estimates.
        proxy: How the estimator trains what it trains; its cost is the method's.
    """

    estimator: EstimatorName = "proxy"
    proxy: Proxy = Proxy()

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)

    def space(self, budget: int) -> Mapping[str, Range]:
        """What a search chooses from: what the estimator trains takes a fifth of the budget."""
        return {} if self.estimator in FREE else proxy_space(budget)

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return match_table(estimator_named(self.estimator, self.proxy)(problem).table(problem))

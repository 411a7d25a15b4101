"""The target that uses any estimator of `unweave.targets.estimators`."""

from collections.abc import Mapping
from dataclasses import dataclass

from unweave.choices import refuse_unknown_choices
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective
from unweave.problem import Problem
from unweave.space import Range
from unweave.targets.estimators import WITHOUT_PROXY, EstimatorName, estimator_named
from unweave.targets.estimators.held_out import match_table
from unweave.targets.estimators.proxy import Proxy, proxy_space

__all__ = ["Estimate"]


@dataclass(frozen=True)
class Estimate:
    """Pulls each forget output to an estimate of what a retrained model would answer; classifiers only.

    Args:
        estimator: The estimator.
        proxy: How the estimator trains its models; the method pays their cost.
    """

    estimator: EstimatorName = "proxy"
    proxy: Proxy = Proxy()

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space: the estimator's models take a fifth of the budget."""
        return {} if self.estimator in WITHOUT_PROXY else proxy_space(budget)

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return match_table(estimator_named(self.estimator, self.proxy)(problem).table(problem))

"""Estimators of what a retrained model would answer on the forget set.

An estimator takes a problem and returns `EstimatedLogits`, a row of logits per forget example. It needs no
retrained model. It never reads the original's output on a forget example, except to rank examples if a
setting says so, because that output leaks what should be forgotten. There are two exceptions: a proxy with a
warm start inherits what training does not undo, and `Influence` starts from the output itself.

    estimate = Ranks("chosen", Proxy(how=Descent(lr=0.1, epochs=3)))(problem) objective = nll("retain") + 0.5
    * match_table(estimate.table(problem))
"""

from dataclasses import replace
from typing import Literal

from unweave.descent.descend import Descent
from unweave.targets.estimators.estimator import EstimatedLogits as EstimatedLogits
from unweave.targets.estimators.estimator import Estimator as Estimator
from unweave.targets.estimators.influence import Influence as Influence
from unweave.targets.estimators.proxies import Answers as Answers
from unweave.targets.estimators.proxies import Pool as Pool
from unweave.targets.estimators.proxy import Proxy as Proxy
from unweave.targets.estimators.ranks import Ranks as Ranks
from unweave.targets.estimators.shards import Shards as Shards

EstimatorName = Literal[
    "proxy", "pool", "original-ranks", "proxy-ranks", "chosen-ranks", "shards", "influence"
]
"""The names of estimators in recipes."""

WITHOUT_PROXY = ("original-ranks", "influence")
"""The estimators that train nothing."""


def estimator_named(name: EstimatorName, proxy: Proxy) -> Estimator:
    """The estimator of that name.

    Args:
        name: Its name.
        proxy: How it trains its models; several models share the steps.
    """
    match name:
        case "proxy":
            return Answers(proxy)
        case "pool":
            half_proxy = replace(proxy, how=share_length(proxy.how, 2))
            return Pool(
                (replace(half_proxy, start="scratch"), replace(half_proxy, start="shrunk", amount=0.4))
            )
        case "original-ranks":
            return Ranks("original")
        case "proxy-ranks":
            return Ranks("proxy", proxy)
        case "chosen-ranks":
            return Ranks("chosen", proxy)
        case "shards":
            return Shards(2, how=share_length(proxy.how, 2))
        case "influence":
            return Influence()


def share_length(how: Descent, models: int) -> Descent:
    """Shortens a descent so that several models together train as long as one did."""
    if how.steps is not None:
        return replace(how, steps=max(1, how.steps // models))
    assert how.epochs is not None
    return replace(how, epochs=how.epochs / models)

"""What would a retrained model answer on the forget data? One question, several answers.

An estimator takes a problem and returns `EstimatedLogits`, a row of logits per forget example. It reads no
retrained model. It never reads the original's answer on a forget example, save for ranks where asked to,
because that answer leaks what should be forgotten. Two are exceptions by their nature, and say so: a proxy
with a warm start inherits from the original's weights what training does not undo, and `Influence` begins
with the answer itself.

    estimate = Ranks("chosen", Proxy(how=Descent(lr=0.1, epochs=3)))(problem)
    objective = nll("retain") + 0.5 * toward(estimate.table(problem))
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
"""How recipes call an estimator."""

FREE = ("original-ranks", "influence")
"""Those that train nothing."""


def estimator_named(name: EstimatorName, proxy: Proxy) -> Estimator:
    """The estimator of that name.

    Args:
        name: Its name.
        proxy: How whatever it trains is trained; several models share the steps.
    """
    match name:
        case "proxy":
            return Answers(proxy)
        case "pool":
            half = replace(proxy, how=share_length(proxy.how, 2))
            return Pool((replace(half, start="scratch"), replace(half, start="shrunk", amount=0.4)))
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
    """A descent of each of so many models that takes as long for all of them as this one."""
    if how.steps is not None:
        return replace(how, steps=max(1, how.steps // models))
    assert how.epochs is not None
    return replace(how, epochs=how.epochs / models)

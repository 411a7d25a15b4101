"""Estimates by models that were trained on retain data alone for a fraction of retraining."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.choices import refuse_unknown_choices
from unweave.problem import Problem
from unweave.targets.estimators.estimator import EstimatedLogits, refuse_other_than_classifiers
from unweave.targets.estimators.held_out import ModelLogits, logits, of_retained_classes, shift_to_level
from unweave.targets.estimators.proxy import Proxy

Level = Literal["held-out", "own"]
"""How sure an estimate is: as the original is of held-out data, rank by rank, or as its source is."""


@dataclass(frozen=True)
class Answers:
    """What a proxy answers.

    Args:
        proxy: From fresh weights; from all weights of the original, scaled; or from the original with those
            weights redrawn by which it knows the forget data. Both warm starts leak where labels are noisy.
        level: How sure it is.
    """

    proxy: Proxy = Proxy()
    level: Level = "held-out"

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """The estimate."""
        refuse_other_than_classifiers(problem)
        said = ModelLogits.of(problem, self.proxy(problem))
        return EstimatedLogits(said.forget if self.level == "own" else shift_to_level(problem, said))


@dataclass(frozen=True)
class Pool:
    r"""A product of experts, :math:`p \propto \prod_j p_j^{w_j}`, with weights that held-out data chose.

    On the calibration part the original is as much a stranger as a retrained model is on the forget part. So
    the weights are those, none negative, with which the pool comes nearest to the *original* there, in
    Kullback-Leibler divergence; no label is read. With one proxy the weight is an inverse temperature.

    A proxy with a warm start may resemble the original for the sake of its descent as well; what it leaks of
    the forget data, held-out data does not show.

    Args:
        proxies: Whose answers are pooled.
        level: How sure it is.
    """

    proxies: tuple[Proxy, ...] = (Proxy(), Proxy("shrunk", 0.4))
    level: Level = "held-out"

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        if not self.proxies:
            raise ValueError("a pool needs at least one proxy, found none")

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """The estimate."""
        refuse_other_than_classifiers(problem)
        said = [ModelLogits.of(problem, proxy(problem)) for proxy in self.proxies]
        strangers = of_retained_classes(problem)
        original = logits(problem, problem.original, "calibration")[strangers]
        weights = pool_weights(stack_log_probabilities([each.held[strangers] for each in said]), original)
        forget, held = (
            torch.einsum("j,jnc->nc", weights, stack_log_probabilities(tables))
            for tables in ([each.forget for each in said], [each.held for each in said])
        )
        return EstimatedLogits(
            forget if self.level == "own" else shift_to_level(problem, ModelLogits(forget, held))
        )


def stack_log_probabilities(tables: list[Float[Tensor, "n class"]]) -> Float[Tensor, "proxies n class"]:
    """Log-probabilities."""
    return torch.stack(tables).log_softmax(-1)


def pool_weights(
    said: Float[Tensor, "proxies n class"], wanted: Float[Tensor, "n class"], *, iterations: int = 200
) -> Float[Tensor, " proxies"]:
    """The weights, none negative, whose pool has the least mean divergence from what is wanted.

    The divergence is convex in the weights. L-BFGS goes over their logarithms, so that none becomes negative.

    Args:
        said: Log-probabilities of each proxy.
        wanted: Logits.
        iterations: Of L-BFGS, at most.
    """
    p, table = wanted.double().softmax(-1), said.double()
    logs = torch.full((len(said),), 1 / len(said), dtype=torch.double).log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        pooled = torch.einsum("j,jnc->nc", logs.exp(), table).log_softmax(-1)
        divergence = -(p * pooled).sum(-1).mean()
        divergence.backward()
        return divergence

    optimizer.step(loss)
    return logs.detach().exp().to(said.dtype)

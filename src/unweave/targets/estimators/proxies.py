"""Estimates from proxies: models trained on the retain set for a fraction of a retraining."""

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
"""The confidence of an estimate: that of the original on held-out data, rank by rank, or the source's own."""


@dataclass(frozen=True)
class Answers:
    """The outputs of a proxy.

    Args:
        proxy: The proxy. Its warm starts leak if labels are noisy.
        level: The confidence of the estimate.
    """

    proxy: Proxy = Proxy()
    level: Level = "held-out"

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """The estimate."""
        refuse_other_than_classifiers(problem)
        answers = ModelLogits.of(problem, self.proxy(problem))
        return EstimatedLogits(answers.forget if self.level == "own" else shift_to_level(problem, answers))


@dataclass(frozen=True)
class Pool:
    r"""A product of experts, :math:`p \propto \prod_j p_j^{w_j}`, with weights fitted on held-out data.

    The calibration set is to the original what the forget set is to a retrained model. So the weights are the
    non-negative ones with which the pool comes nearest to the *original* there, in Kullback-Leibler
    divergence; no label is read. With one proxy the weight is an inverse temperature.

    A proxy with a warm start may also resemble the original because it descends from it; held-out data does
    not show what it leaks.

    Args:
        proxies: The proxies to pool.
        level: The confidence of the estimate.
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
        answers = [ModelLogits.of(problem, proxy(problem)) for proxy in self.proxies]
        strangers = of_retained_classes(problem)
        original = logits(problem, problem.original, "calibration")[strangers]
        weights = pool_weights(
            stack_log_probabilities([each.calibration[strangers] for each in answers]), original
        )
        forget, calibration = (
            torch.einsum("j,jnc->nc", weights, stack_log_probabilities(tables))
            for tables in ([each.forget for each in answers], [each.calibration for each in answers])
        )
        return EstimatedLogits(
            forget if self.level == "own" else shift_to_level(problem, ModelLogits(forget, calibration))
        )


def stack_log_probabilities(tables: list[Float[Tensor, "n class"]]) -> Float[Tensor, "proxies n class"]:
    """The log-probabilities of several tables of logits."""
    return torch.stack(tables).log_softmax(-1)


def pool_weights(
    log_p: Float[Tensor, "proxies n class"],
    target: Float[Tensor, "n class"],
    *,
    iterations: int = 200,
) -> Float[Tensor, " proxies"]:
    """The non-negative weights whose pool has the least mean divergence from the wanted distribution.

    The divergence is convex in the weights. L-BFGS optimises their logarithms, so that none becomes negative.

    Args:
        log_p: The log-probabilities of each proxy.
        target: The logits of the wanted distribution.
        iterations: The most iterations of L-BFGS.
    """
    p, table = target.double().softmax(-1), log_p.double()
    logs = torch.full((len(log_p),), 1 / len(log_p), dtype=torch.double).log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        pool = torch.einsum("j,jnc->nc", logs.exp(), table).log_softmax(-1)
        divergence = -(p * pool).sum(-1).mean()
        divergence.backward()
        return divergence

    optimizer.step(loss)
    return logs.detach().exp().to(log_p.dtype)

"""Margins of held-out data at the rank of each forget example."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unweave.descent.objective import Objective, on
from unweave.problem import Problem
from unweave.split import Part
from unweave.targets.estimators.held_out import forgotten_classes, logits, of_retained_classes
from unweave.tasks import Batch
from unweave.tasks.classifier import classifies, margin
from unweave.weights.step import Step


def quantiles(problem: Problem, ranks: nn.Module) -> Float[Tensor, " n"]:
    """The held-out margin at the rank of each forget example, in nats; zero for other examples.

    The margins are those of the original on the calibration set. A proxy ranks correctly and wrongly
    classified examples separately; the original has seen the labels, and ranks all together. The original
    knows a class that is forgotten whole, so the examples of that class are ranked separately, at the proxy's
    own margins.

    Args:
        problem: The problem.
        ranks: The model whose margins order the examples: a proxy that never saw them, or `problem.original`.

    Raises:
        ValueError: If the task is no classification, or no held-out examples suit the forget set.
    """
    if not classifies(problem.task):
        raise ValueError(
            f"quantile targets are margins of a classifier, found the task {type(problem.task).__name__}: "
            "use 'match'"
        )
    proxied, split = ranks is not problem.original, problem.split
    if split.forgotten_classes and not proxied:
        raise ValueError(
            f"the original knows the forgotten classes {split.forgotten_classes}, so its ranks say nothing: "
            "use ranks='proxy'"
        )
    order, held_order = margins(problem, ranks, "forget"), margins(problem, ranks, "calibration")
    level = margins(problem, problem.original, "calibration") if proxied else held_order
    lost = torch.isin(split.train.labels[split.forget], forgotten_classes(problem))
    held_lost = ~of_retained_classes(problem)
    level_margins = torch.empty_like(order)
    for here, there, margin_there in ((~lost, ~held_lost, level), (lost, held_lost, held_order)):
        if bool(here.any()):
            level_margins[here] = match_quantiles(
                order[here], held_order[there], margin_there[there], stratified=proxied
            )
    return level_margins.new_zeros(len(split.train)).index_copy_(0, split.forget, level_margins)


def match_quantiles(
    order: Float[Tensor, " n"],
    held_order: Float[Tensor, " m"],
    level: Float[Tensor, " m"],
    *,
    stratified: bool,
) -> Float[Tensor, " n"]:
    """The held-out level at each value's rank; `stratified` separates positive and negative values."""
    if not len(level):
        raise ValueError(
            "quantile targets need calibration examples of the kind that is forgotten, found none: "
            "use 'match'"
        )
    strata = [(order > 0, held_order > 0), (order <= 0, held_order <= 0)] if stratified else []
    if not strata or any(bool(here.any()) and not bool(there.any()) for here, there in strata):
        return at_ranks(order, level)
    margins = torch.empty_like(order)
    for here, there in strata:
        if bool(here.any()):
            margins[here] = at_ranks(order[here], level[there])
    return margins


def at_ranks(order: Float[Tensor, " n"], pool: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """The quantile of the pool at the mid-rank of each value."""
    rank = (order.argsort(stable=True).argsort() + 0.5) / len(order)
    return pool.quantile(rank.to(pool.dtype))


def margin_loss(targets: Float[Tensor, " n"]) -> Objective:
    """Huber's loss between each forget margin and its target margin, in nats.

    Args:
        targets: One margin per training example, from `quantiles`.
    """

    def value(step: Step, batch: Batch) -> Tensor:
        target = step.once(
            ("quantile", id(batch)), lambda: targets[batch.ids.to(targets.device)].to(batch.target.device)
        )
        return F.huber_loss(margin(step.predict(batch).float(), batch.target), target, reduction="none")

    return on("forget", "quantile", value)


def margins(problem: Problem, model: nn.Module, part: Part) -> Float[Tensor, " n"]:
    """The true-class margins of a part, on the CPU."""
    source, ids = problem.split.part(part)
    return margin(logits(problem, model, part), source.labels[ids])

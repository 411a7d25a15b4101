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
    uses_proxy, split = ranks is not problem.original, problem.split
    if split.forgotten_classes and not uses_proxy:
        raise ValueError(
            f"the original knows the forgotten classes {split.forgotten_classes}, so its ranks say nothing: "
            "use ranks='proxy'"
        )
    order, held_order = margins(problem, ranks, "forget"), margins(problem, ranks, "calibration")
    level = margins(problem, problem.original, "calibration") if uses_proxy else held_order
    is_forgotten = torch.isin(split.train.labels[split.forget], forgotten_classes(problem))
    is_held_forgotten = ~of_retained_classes(problem)
    level_margins = torch.empty_like(order)
    for mask, held_mask, margin_there in (
        (~is_forgotten, ~is_held_forgotten, level),
        (is_forgotten, is_held_forgotten, held_order),
    ):
        if bool(mask.any()):
            level_margins[mask] = match_quantiles(
                order[mask], held_order[held_mask], margin_there[held_mask], stratified=uses_proxy
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
    if not strata or any(bool(mask.any()) and not bool(held_mask.any()) for mask, held_mask in strata):
        return at_ranks(order, level)
    margins = torch.empty_like(order)
    for mask, held_mask in strata:
        if bool(mask.any()):
            margins[mask] = at_ranks(order[mask], level[held_mask])
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

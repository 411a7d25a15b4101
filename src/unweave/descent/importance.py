"""Importance scores of the weights, and the masks that select weights by them.

"Saliency" and "Fisher" mean several things in the literature. Here each has its own function, with the
formula in the first line. All are computed in evaluation mode, in one pass over a part of the data; `g_b` is
the gradient of batch `b`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unweave.choices import refuse_no_pattern, refuse_outside
from unweave.descent.objective import Objective, nll
from unweave.errors import Failed
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import evaluating
from unweave.weights.highest import highest_of, highest_of_shards
from unweave.weights.params import Params, add, multiply, rebuild
from unweave.weights.runtime import Runtime
from unweave.weights.sharded import is_sharded, names_where, pieces
from unweave.weights.step import Step

__all__ = ["Importance", "Mask", "choose_weights", "fisher", "invert", "ratio", "saliency", "snip", "top"]

Importance = Params
Mask = Params
"""A multiplier in [0, 1] per weight."""


def steps(
    problem: Problem, part: Part, *, batch: int = 128, batches: int | None = None, draws: int = 1
) -> Iterator[Step]:
    """Yields a step for each batch of a part, at the problem's weights, in random order and evaluation mode.

    Each step holds `draws` random draws (noise, time) of its batch.
    """
    source, ids = problem.split.part(part)
    order = ids[torch.randperm(len(ids), generator=problem.generator)].split(batch)[:batches]
    runtime = Runtime(problem.model, problem.task, processes=problem.processes, cost=problem.cost)
    key = torch.Generator().manual_seed(problem.seed())
    with evaluating(problem.model):
        raws = source.stream(problem.processes.rows_to_read(rows) for rows in order)
        for rows, raw in zip(order, raws, strict=True):
            repeats = [problem.task.draw(raw, key) for _ in range(draws)]
            micro_batches = [
                each for repeat in repeats for each in problem.processes.micro_batches(rows, repeat)
            ]
            yield Step(problem.params, runtime, {part: micro_batches}, {part: len(rows)}, index=1)


def gradients(
    problem: Problem, objective: Objective, *, batch: int = 128, batches: int | None = None, draws: int = 1
) -> Iterator[Params]:
    """Yields the gradient of an objective on each batch of its part, summed over the draws of the batch."""
    (part,) = objective.parts
    for step in steps(problem, part, batch=batch, batches=batches, draws=draws):
        yield step.gradient(objective)


def accumulate(gradients: Iterator[Params], of: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], int]:
    """The sum over batches of a function of the gradient, and the number of batches."""
    total: dict[str, Tensor] = {}
    count = 0
    for gradient in gradients:
        term = {name: of(g) for name, g in gradient.items()}
        total = add(total, term) if total else term
        count += 1
    return total, count


def saliency(problem: Problem, objective: Objective, *, batch: int = 256) -> Importance:
    r""":math:`|\sum_b g_b|`: the absolute value of the summed gradient, as in SalUn's released code."""
    total, _ = accumulate(gradients(problem, objective, batch=batch), lambda g: g)
    return {name: g.abs() for name, g in total.items()}


def snip(problem: Problem, objective: Objective, *, batch: int = 256, batches: int | None = 1) -> Importance:
    r""":math:`|\theta| \sum_b |g_b|`: connection sensitivity (Lee et al., 2019).

    As in Scissorhands' released code, by default on one batch. That code stays in training mode, which
    changes BatchNorm's statistics; this does not.
    """
    total, _ = accumulate(gradients(problem, objective, batch=batch, batches=batches), torch.abs)
    return {name: total[name] * p.detach().abs() for name, p in problem.params.items()}


def fisher(
    problem: Problem, objective: Objective, *, batch: int = 128, batches: int | None = None, draws: int = 1
) -> Importance:
    r""":math:`\frac{1}{B} \sum_b g_b^2`: diagonal of the empirical Fisher, per batch; per example at batch=1.

    With several draws per batch, their sum is squared: :math:`(\sum_k g_{bk})^2`.
    """
    batch_gradients = gradients(problem, objective, batch=batch, batches=batches, draws=draws)
    total, count = accumulate(batch_gradients, torch.square)
    return {name: g / count for name, g in total.items()}


def ratio(over: Importance, under: Importance, *, floor: float = 1e-15) -> Importance:
    r""":math:`(F + \epsilon) / (R + \epsilon)`: importance for one part, relative to another."""
    return {name: (over[name] + floor) / (under[name] + floor) for name in over}


def top(scores: Importance, fraction: float) -> Mask:
    """One for the fraction of weights with the highest scores, ranked across the whole model.

    Ties are broken by the order of the weights, so the fraction is exact.

    Raises:
        ValueError: If the fraction is outside [0, 1].
        Failed: If a score is NaN.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], found {fraction}")
    if names_where(scores, torch.isnan):
        raise Failed(
            "the scores of weights are NaN: the model or the loss that they come from is no longer finite"
        )
    local_scores, count = pieces(scores.values()), round(fraction * sum(s.numel() for s in scores.values()))
    highest = highest_of_shards if any(map(is_sharded, scores.values())) else highest_of
    mask = highest(local_scores, count).to(local_scores[0].dtype)
    parts = mask.split([s.numel() for s in local_scores])
    return rebuild(scores, [part.view_as(s) for part, s in zip(parts, local_scores, strict=True)])


def match_names(params: Params, pattern: str) -> Mask:
    """One for all weights whose name matches the regular expression.

    Raises:
        ValueError: If no name matches.
    """
    masks = {name: torch.full_like(p, float(bool(re.search(pattern, name)))) for name, p in params.items()}
    if not names_where(masks, Tensor.bool):
        raise ValueError(f"no weight matches {pattern!r}; the first are {', '.join(list(params)[:3])}")
    return masks


@dataclass(frozen=True)
class Salient:
    """The weights most salient to the forget set, as SalUn selects them.

    Args:
        fraction: The fraction of all weights.
        within: A pattern for the names of the weights to choose from; all if None.
    """

    fraction: float = 0.5
    within: str | None = None

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "fraction")
        refuse_no_pattern(self, "within")


def choose_weights(problem: Problem, where: str | Salient | None) -> Mask | None:
    """The mask of the weights to train: those whose names match, or the salient ones; None for all."""
    if where is None or isinstance(where, str):
        return None if where is None else match_names(problem.params, where)
    salient = top(saliency(problem, nll("forget")), where.fraction)
    return salient if where.within is None else multiply(salient, match_names(problem.params, where.within))


def weights_of_modules(modules: Iterable[nn.Module], params: Params) -> Mask:
    """One for the weights that these modules hold directly, including weights shared with other modules."""
    ids = {id(p) for module in modules for p in module.parameters(recurse=False)}
    return {name: torch.full_like(p, id(p) in ids) for name, p in params.items()}


def invert(mask: Mask) -> Mask:
    """One where the mask is zero, zero where it is one."""
    return {name: 1 - m for name, m in mask.items()}

"""Redraws the weights most sensitive to the forget set: the start of Scissorhands, LUR and warm proxies.

Sensitivity is SNIP's. Normalisation layers are recognised by type, never by name: a redrawn scale would
silence a channel.
"""

import re

import torch

from unweave.descent.edit import reinitialize
from unweave.descent.importance import Mask, snip, top
from unweave.descent.objective import nll
from unweave.problem import Problem
from unweave.weights.params import multiply
from unweave.weights.sharded import names_where

__all__ = ["redraw_sensitive"]


def redraw_sensitive(
    problem: Problem, fraction: float, *, eligible: str | None = None, within: Mask | None = None
) -> None:
    """Redraws the fraction of the eligible weights that is most sensitive to the forget set.

    Args:
        problem: The problem whose model to edit.
        fraction: The exact fraction of the eligible weights to redraw.
        eligible: A pattern for their names; by default the last third of the modules with matrices or
            kernels.
        within: Weights at zero are never redrawn; modules with nothing else do not count.
    """
    mask = mask_most_sensitive(problem, fraction, eligible_weights(problem, eligible, within))
    reinitialize(problem, mask if within is None else multiply(mask, within))


def mask_most_sensitive(problem: Problem, fraction: float, eligible: list[str]) -> Mask:
    """The mask of the most sensitive fraction of the eligible weights, by SNIP over the whole forget set."""
    scores = snip(problem, nll("forget"), batches=None)
    masks = top({name: scores[name] for name in eligible}, fraction)
    return {name: masks[name] if name in masks else torch.zeros_like(score) for name, score in scores.items()}


def eligible_weights(problem: Problem, pattern: str | None, within: Mask | None = None) -> list[str]:
    """The names of weights that may be redrawn: trainable ones of `problem.blocks`, tied ones once.

    Args:
        problem: The problem.
        pattern: A pattern for the names; the last third of the modules, at least one, if None.
        within: A mask; weights at zero must not change.

    Raises:
        ValueError: If there are none.
    """
    names = problem.params if within is None else names_where(within, torch.Tensor.bool)
    weights = {name: problem.params[name] for name in names}
    weight_ids = {id(p) for p in weights.values()}
    candidates = [
        m for _, m in problem.blocks if any(id(p) in weight_ids for p in m.parameters(recurse=False))
    ]
    modules = candidates if pattern is not None else candidates[-max(1, len(candidates) // 3) :]
    ids = {id(p) for m in modules for p in m.parameters(recurse=False)}
    names = [name for name, p in weights.items() if id(p) in ids and re.search(pattern or "", name)]
    if not names:
        raise ValueError(
            "no weight can be redrawn: expected a trainable one in a weight-bearing module, and no "
            f"normalisation, whose name matches {pattern or 'anything'!r}"
        )
    return names

"""Rules that turn the gradients of several terms into one direction.

A rule sees only the Gramian of the gradients, `G[i, j] = <g_i, g_j>`, and answers with one weight per term:
for two terms over a billion weights it decides from four numbers. `total` is known to the training loop,
which then skips the Gramian.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

RuleName = Literal["total", "pcgrad", "project", "gem"]
Rule = Callable[[Float[Tensor, "m m"], torch.Generator], Float[Tensor, " m"]]


def total(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    """Plain sum: the gradient of the sum."""
    return gramian.new_ones(len(gramian))


def pcgrad(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    """Projects each gradient off those it conflicts with, in random order, and sums (Yu et al., 2020).

    Algorithm 1. The order is drawn from the generator, so that all processes draw the same.
    """
    m = len(gramian)
    weights = torch.eye(m, dtype=gramian.dtype, device=gramian.device)
    for i in range(m):
        for j in torch.randperm(m, generator=generator).tolist():
            if j != i:
                overlap = (gramian[j] @ weights[i]).clamp(
                    max=0
                )  # no branch: a branch would wait for the device
                weights[i, j] -= overlap / gramian[j, j].clamp(min=torch.finfo(gramian.dtype).tiny)
    return weights.sum(0)


def project(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    r"""Follows the first gradient without ever opposing the second: GEM for one memory.

    Lopez-Paz & Ranzato, 2017: :math:`g_1 + \max(0, -\langle g_1, g_2 \rangle / \|g_2\|^2)\, g_2`. With one
    term it is that term's gradient.

    Raises:
        ValueError: If there are more than two terms.
    """
    refuse_more_than_two("project", gramian)
    if len(gramian) == 1:
        return gramian.new_ones(1)
    overlap, size = gramian[0, 1], gramian[1, 1].clamp(min=torch.finfo(gramian.dtype).tiny)
    return torch.stack([torch.ones_like(size), (-overlap / size).clamp(min=0)])


def gem(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    r"""`project` as Scissorhands' released code solves it, with a margin of one half.

    Where the two gradients conflict, :math:`g_1 + v\, g_2` with :math:`v = \max(1/2, -\langle g_1, g_2
    \rangle / (\|g_2\|^2 + 10^{-3}))`: at least half of the second is added.

    Raises:
        ValueError: If there are more than two terms.
    """
    refuse_more_than_two("gem", gramian)
    if len(gramian) == 1:
        return gramian.new_ones(1)
    overlap = gramian[0, 1]
    pull = (-overlap / (gramian[1, 1] + 1e-3)).clamp(min=0.5)
    return torch.stack([torch.ones_like(pull), torch.where(overlap < 0, pull, torch.zeros_like(pull))])


def refuse_more_than_two(rule: RuleName, gramian: Float[Tensor, "m m"]) -> None:
    """Raises if a rule for two terms is given more."""
    if len(gramian) > 2:
        raise ValueError(
            f"rule {rule!r} takes the gradient to follow and the one to respect, found {len(gramian)} terms"
        )


RULES: dict[RuleName, Rule] = {"total": total, "pcgrad": pcgrad, "project": project, "gem": gem}

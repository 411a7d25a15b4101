"""Rules that turn the gradients of several terms into one direction.

A rule gets only the Gramian of the gradients, `G[i, j] = <g_i, g_j>`, and returns one weight per term: for
two terms over a billion weights it decides from four numbers. For `total` the training loop skips the
Gramian.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

RuleName = Literal["total", "pcgrad", "project", "gem", "nash", "mgda", "cagrad", "upgrad"]
Rule = Callable[[Float[Tensor, "m m"], torch.Generator], Float[Tensor, " m"]]


def total(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    """Plain sum: the gradient of the sum."""
    return gramian.new_ones(len(gramian))


def pcgrad(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    """Projects each gradient off those it conflicts with, in random order, and sums (Yu et al., 2020).

    Algorithm 1. The order comes from the generator, so it is the same in all processes.
    """
    m = len(gramian)
    weights = torch.eye(m, dtype=gramian.dtype, device=gramian.device)
    for i in range(m):
        for j in torch.randperm(m, generator=generator).tolist():
            if j != i:
                # no branch: a branch would wait for the device
                overlap = (gramian[j] @ weights[i]).clamp(max=0)
                weights[i, j] -= overlap / gramian[j, j].clamp(min=torch.finfo(gramian.dtype).tiny)
    return weights.sum(0)


def project(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    r"""The first gradient, corrected so that it never opposes the second: GEM with one memory.

    Lopez-Paz & Ranzato, 2017: :math:`g_1 + \max(0, -\langle g_1, g_2 \rangle / \|g_2\|^2)\, g_2`. With one
    term it is that term's gradient.

    Raises:
        ValueError: If there are more than two terms.
    """
    if is_single("project", gramian):
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
    if is_single("gem", gramian):
        return gramian.new_ones(1)
    overlap = gramian[0, 1]
    pull = (-overlap / (gramian[1, 1] + 1e-3)).clamp(min=0.5)
    return torch.stack([torch.ones_like(pull), torch.where(overlap < 0, pull, torch.zeros_like(pull))])


def nash(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    r"""The bargain of two: :math:`G \alpha = 1 / \alpha`, elementwise, with positive weights (Nash, 1950).

    :math:`\alpha_i = 1 / (\|g_i\| \sqrt{1 + \cos})`, and the direction, which bisects the two, always has the
    norm :math:`\sqrt 2`. For opposite gradients it is zero.

    Raises:
        ValueError: If there are more than two terms.
    """
    if is_single("nash", gramian):
        return gramian.new_ones(1)
    kind = torch.finfo(gramian.dtype)
    sizes = gramian.diagonal().clamp(min=kind.tiny).sqrt()
    cosine = gramian[0, 1] / sizes[0] / sizes[1]
    return 1 / (sizes * (1 + cosine).clamp(min=kind.eps, max=2).sqrt())


def mgda(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    r"""The shortest vector between two gradients, which opposes neither (Desideri, 2012).

    :math:`\min_{w \ge 0, w_1 + w_2 = 1} \|w_1 g_1 + w_2 g_2\|`. The smaller gradient dominates.

    Raises:
        ValueError: If there are more than two terms.
    """
    if is_single("mgda", gramian):
        return gramian.new_ones(1)
    pulls = (gramian.diagonal().flip(0) - gramian[0, 1]).clamp(min=0)
    total = pulls.sum()
    return torch.where(total > 0, pulls / total.clamp(min=torch.finfo(gramian.dtype).tiny), 0.5)


def cagrad(gramian: Float[Tensor, "m m"], generator: torch.Generator, c: float = 0.5) -> Float[Tensor, " m"]:
    r"""Maximises the smaller of two decreases in a ball around the mean gradient (Liu et al., 2021).

    :math:`\max_d \min_i \langle g_i, d \rangle` with :math:`\|d - g_0\| \le c\, \|g_0\|`. Its dual,
    :math:`\min_x \langle g_x, g_0 \rangle + c\, \|g_0\| \|g_x\|` over :math:`g_x = x g_1 + (1 - x) g_2`, is
    convex in one number, and its derivative has a closed-form root.

    Args:
        gramian: The inner products.
        generator: Not used.
        c: The radius, relative to the mean gradient; 0 gives the mean gradient.

    Raises:
        ValueError: If there are more than two terms, or c is not in [0, 1).
    """
    if not 0 <= c < 1:
        raise ValueError(f"c must be in [0, 1), found {c}: from 1 on the mean loss need not fall")
    if is_single("cagrad", gramian):
        return gramian.new_ones(1)
    kind = torch.finfo(gramian.dtype)
    unit = gramian / gramian.trace().clamp(min=kind.tiny)
    a, b, d = unit[0, 0], unit[0, 1], unit[1, 1]
    radius, distance = c * c * (a + 2 * b + d).clamp(min=0) / 4, (a - 2 * b + d).clamp(min=kind.eps)
    slope, height = (a - d) / 2, ((a * d - b * b) / distance).clamp(min=0)
    room = radius - slope * slope / distance
    # the root, counted from where g_x is shortest; without one the dual falls all the way to one end
    root = (d - b - slope * (height / room.clamp(min=kind.eps)).sqrt()) / distance
    x = torch.where(room > 0, root.clamp(0, 1), (slope < 0).to(root))
    between = torch.stack([x, 1 - x])
    # a gradient of zero has no direction to add
    size = (between @ unit @ between).clamp(min=kind.eps**2).sqrt()
    return 0.5 + radius.sqrt() / size * between


def upgrad(gramian: Float[Tensor, "m m"], generator: torch.Generator) -> Float[Tensor, " m"]:
    """The mean of the two gradients, each first projected so that it opposes neither (Quinton & Rey, 2024).

    For two gradients this is half of `pcgrad`.

    TorchJD 0.18 solves a regularised problem by default: it divides the Gramian by its trace, or takes it for
    zero where that is below 1e-4, and adds 1e-4 to the diagonal. At an angle of 2 radians its direction is
    6e-5 of the length away for gradients of one size, 0.004 where one is a tenth of the other and 0.2 where
    it is a hundredth, which it then opposes. Below the trace of 1e-4 it is the plain mean.

    Raises:
        ValueError: If there are more than two terms.
    """
    return pcgrad(gramian, generator) / (1 if is_single("upgrad", gramian) else 2)


def is_single(rule: RuleName, gramian: Float[Tensor, "m m"]) -> bool:
    """Whether a rule for two terms got a single one, which it returns unchanged.

    Raises:
        ValueError: If there are more than two.
    """
    if len(gramian) > 2:
        raise ValueError(f"rule {rule!r} is for two terms, found {len(gramian)}: use 'total' or 'pcgrad'")
    return len(gramian) == 1


RULES: dict[RuleName, Rule] = {
    "total": total,
    "pcgrad": pcgrad,
    "project": project,
    "gem": gem,
    "nash": nash,
    "mgda": mgda,
    "cagrad": cagrad,
    "upgrad": upgrad,
}

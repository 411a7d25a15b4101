r"""Ranks of methods over paired blocks, and when they differ (Demšar, JMLR 7, 2006).

A block is one seed of one stage: all methods start there from the same original, and each gets its rank, 1
for the smallest figure. Friedman's test, in the form of Iman and Davenport, tests whether any method differs;
Nemenyi's critical difference, :math:`q_\alpha \sqrt{k (k + 1) / (6 N)}` for k methods over N blocks, is the
smallest significant difference of two mean ranks. Demšar's blocks are data sets. Seeds of one stage share
their data, so the result over the seeds of a single stage is about that stage alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

ALPHA = 0.05
DECIMALS = 9
"""Figures equal to this number of decimals share a rank: sums of floats differ in the last bits."""


@dataclass(frozen=True)
class Ranking:
    """Methods by their mean rank.

    Args:
        ranks: Mean rank by method, the best first.
        blocks: The number of blocks.
    """

    ranks: Mapping[str, float]
    blocks: int

    @property
    def p(self) -> float:
        """Friedman's test in the form of Iman and Davenport: the p of "all methods rank alike".

        NaN with fewer than two methods or two blocks.
        """
        from scipy.special import fdtrc

        k, n = len(self.ranks), self.blocks
        if k < 2 or n < 2:
            return math.nan
        statistic, most = self.friedman, n * (k - 1)
        if statistic >= most * (1 - 1e-12):
            return 0.0  # every block has the same order
        return float(fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * statistic / (most - statistic)))

    @property
    def friedman(self) -> float:
        """Friedman's statistic, without a correction for ties."""
        k, n = len(self.ranks), self.blocks
        squares = sum(rank**2 for rank in self.ranks.values())
        return max(0.0, 12 * n / (k * (k + 1)) * (squares - k * (k + 1) ** 2 / 4))

    @property
    def critical(self) -> float:
        """The critical difference of two mean ranks; NaN with fewer than two methods."""
        return critical_difference(len(self.ranks), self.blocks)

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The largest sets of two or more neighbours whose mean ranks differ by less than `critical`."""
        names, cliques = list(self.ranks), list[tuple[str, ...]]()
        for i, first in enumerate(names):
            near = [name for name in names[i:] if self.ranks[name] - self.ranks[first] < self.critical]
            if len(near) > 1 and not (cliques and near[-1] in cliques[-1]):
                cliques.append(tuple(near))
        return cliques


def ranking(blocks: Sequence[Mapping[str, float]]) -> Ranking:
    """Ranks methods in every block.

    Args:
        blocks: At least one block: the figure of each method, smaller is better. All have the same methods. A
            failed method is NaN, and shares the last rank with other failed ones.

    Raises:
        ValueError: If there is no block, or not every block has the same methods.
    """
    if not blocks or any(block.keys() != blocks[0].keys() for block in blocks):
        raise ValueError("ranks need at least one block, and the same methods in each")
    ranked_blocks = [rank_values(block) for block in blocks]
    means = {name: float(np.mean([block[name] for block in ranked_blocks])) for name in blocks[0]}
    return Ranking(dict(sorted(means.items(), key=lambda item: item[1])), len(blocks))


def rank_values(figures: Mapping[str, float]) -> dict[str, float]:
    """The rank of each figure, 1 for the smallest; ties share the mean of their ranks, NaN is last.

    Figures equal to `DECIMALS` decimals are ties: one example of a hundred million.
    """
    from scipy.stats import rankdata

    values = [math.inf if math.isnan(value) else round(value, DECIMALS) for value in figures.values()]
    return dict(zip(figures, rankdata(values).tolist(), strict=True))


def critical_difference(methods: int, blocks: int, *, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of mean ranks; q is Tukey's at infinite degrees of freedom, by root 2."""
    if methods < 2:
        return math.nan
    return studentized_quantile(methods, alpha) * math.sqrt(methods * (methods + 1) / (12 * blocks))


@cache
def studentized_quantile(methods: int, alpha: float) -> float:
    """Tukey's q at infinite degrees of freedom, which takes a tenth of a second to integrate."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - alpha, methods, math.inf))

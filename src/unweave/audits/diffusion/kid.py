r"""Kernel distance between two sets of images in the space of a recogniser (Binkowski et al., 2018).

MMD^2 with the cubic kernel k(x, y) = (x . y / d + 1)^3, https://arxiv.org/abs/1801.01401, in its unbiased
form:

    sum_{i != j} k(x_i, x_j) / n(n - 1) + sum_{i != j} k(y_i, y_j) / m(m - 1) - 2 sum_{i, j} k(x_i, y_j) / nm

If x_i and y_i share a seed, as images of two models do, they are not independent: the last sum is then over i
!= j as well ("paired"); otherwise two similar models would be below 0.

It is 0 on average if both sets come from one distribution, and therefore often negative. Unlike a Frechet
distance it does not depend on the number of images; only its interval does. Published values are in
Inception's space and of another magnitude.

Sets consist of groups, one per condition, with equal weights: each mean above is the mean over pairs of
groups of their own means. Images drawn per condition are no sample of a mixture, because pairs of the same
condition are too rare: the formula over all images is below 0 where it should be 0 (-0.005 for halves of the
digits' pixels). It would also count the different sizes of real classes as distance. For one group it is the
plain formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from unweave.audits.score import Interval

BLOCKS = 10
FEWEST = 20
"""The smallest number of images in a group: two in each block of the jackknife."""

Rows = Float64[np.ndarray, "_ _"]  # checked here, because groups differ in length and spaces may be confused
Groups = Sequence[Rows]


def kid(first: Groups, second: Groups, *, paired: bool = False) -> float:
    """Unbiased MMD^2 of two sets of features; invariant to the order within each group and of the groups.

    Args:
        first: The features of one set, by condition.
        second: The features of the other set.
        paired: Whether row i of a group shares its seed with row i of the other set's group.

    Raises:
        ValueError: If a group has fewer than 20 rows, or paired sets have different sizes.
    """
    return _Sums.of(first, second, paired=paired).kid(np.ones(BLOCKS, dtype=bool))


def kid_interval(first: Groups, second: Groups) -> Interval:
    """`kid` with the 95 % t interval of a jackknife that leaves out one tenth of all groups at a time.

    The variance of a jackknife is too large on average, never too small (Efron and Stein, 1981); a bootstrap
    would draw images twice, at distance zero from themselves. Row i of a group is in block i mod 10, so that
    images of the same seeds are left out together.
    """
    from scipy.special import stdtrit

    sums = _Sums.of(first, second)
    value = sums.kid(np.ones(BLOCKS, dtype=bool))
    leave_one_out = np.array([sums.kid(np.arange(BLOCKS) != block) for block in range(BLOCKS)])
    error = np.sqrt((BLOCKS - 1) / BLOCKS * np.square(leave_one_out - leave_one_out.mean()).sum())
    reach = float(stdtrit(BLOCKS - 1, 0.975) * error)
    return Interval(value, value - reach, value + reach)


def kernel(first: Rows, second: Rows) -> Float64[np.ndarray, "_ _"]:
    """(x . y / d + 1)^3 of every pair of rows."""
    base = first @ second.T / first.shape[1] + 1
    return base * base * base  # numpy's power is many times slower


@dataclass(frozen=True)
class _Cells:
    """One set, divided into groups, and each group into blocks.

    Args:
        rows: All rows, cell after cell.
        sizes: The number of rows of each cell.
    """

    rows: Rows
    sizes: Int64[np.ndarray, "group block"]

    @classmethod
    def of(cls, groups: Groups) -> "_Cells":
        fewest = min((len(group) for group in groups), default=0)
        if fewest < FEWEST:
            raise ValueError(f"a KID needs at least {FEWEST} images in each group, found {fewest}")
        cells = [[group[block::BLOCKS] for block in range(BLOCKS)] for group in groups]
        sizes = np.array([[len(cell) for cell in group] for group in cells])
        return cls(np.concatenate([cell for group in cells for cell in group]), sizes)

    @property
    def starts(self) -> Int64[np.ndarray, " cell"]:
        return self.sizes.cumsum() - self.sizes.flatten()


@dataclass(frozen=True)
class _Sums:
    """Sums of the kernel over pairs of cells; within a set no row is paired with itself.

    Args:
        within: The sums of the first set with itself, and of the second.
        between: The sums of the first set with the second.
        sizes: The number of rows of each cell, for each set.
        paired: Whether the sums between the sets leave out pairs of one seed.
    """

    within: tuple[Float64[np.ndarray, "_ _ _ _"], Float64[np.ndarray, "_ _ _ _"]]
    between: Float64[np.ndarray, "_ _ _ _"]
    sizes: tuple[Int64[np.ndarray, "_ block"], Int64[np.ndarray, "_ block"]]
    paired: bool = False

    @classmethod
    def of(cls, first: Groups, second: Groups, *, paired: bool = False) -> "_Sums":
        spaces = sorted({group.shape[1] for group in (*first, *second)})
        if len(spaces) > 1:
            raise ValueError(f"features must be of one space, found {' and '.join(map(str, spaces))} numbers")
        ours, theirs = _Cells.of(first), _Cells.of(second)
        if paired and not np.array_equal(ours.sizes, theirs.sizes):
            raise ValueError("paired sets must have groups of equal length, found different lengths")
        between = _between(ours, theirs) - (_diagonal(ours, theirs) if paired else 0)
        return cls((_within(ours), _within(theirs)), between, (ours.sizes, theirs.sizes), paired)

    def kid(self, blocks: Bool[np.ndarray, " block"]) -> float:
        """The unbiased estimate from the kept blocks."""
        n, m = (sizes[:, blocks].sum(axis=1) for sizes in self.sizes)
        within = sum(
            (_over(sums, blocks) / (np.outer(sizes, sizes) - np.diag(sizes))).mean()
            for sums, sizes in zip(self.within, (n, m), strict=True)
        )
        pairs = np.outer(n, m) - (np.diag(n) if self.paired else 0)
        return float(within - 2 * (_over(self.between, blocks) / pairs).mean())


def _over(sums: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Sums over pairs of groups, over the kept blocks."""
    return sums[:, blocks][..., blocks].sum(axis=(1, 3))


def _between(ours: _Cells, theirs: _Cells) -> np.ndarray:
    cells = np.split(ours.rows, ours.starts[1:])
    sums = [np.add.reduceat(kernel(cell, theirs.rows).sum(axis=0), theirs.starts) for cell in cells]
    return np.array(sums).reshape(*ours.sizes.shape, *theirs.sizes.shape)


def _within(cells: _Cells) -> np.ndarray:
    return _between(cells, cells) - _diagonal(cells, cells)


def _diagonal(ours: _Cells, theirs: _Cells) -> np.ndarray:
    """Sums of the kernel over pairs of one seed, per cell."""
    values = ((ours.rows * theirs.rows).mean(axis=1) + 1) ** 3
    return np.diag(np.add.reduceat(values, ours.starts)).reshape(ours.sizes.shape * 2)

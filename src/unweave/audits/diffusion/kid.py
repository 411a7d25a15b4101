r"""Kernel distance between two sets of images in the space of a recogniser (Binkowski et al., 2018).

MMD^2 with the cubic kernel k(x, y) = (x . y / d + 1)^3, https://arxiv.org/abs/1801.01401, in its unbiased
form:

    sum_{i != j} k(x_i, x_j) / n(n - 1) + sum_{i != j} k(y_i, y_j) / m(m - 1) - 2 sum_{i, j} k(x_i, y_j) / nm

Where x_i and y_i share a seed, as images of two models do, they are not independent: the last sum is then
over i != j as well ("paired"), or two models that draw alike would be below 0.

It is 0 on average where both sets come from one distribution, and therefore often negative. Unlike a Frechet
distance it does not depend on the number of images, only its interval does. Published values are in
Inception's space and of another size.

Sets are given in groups, one per condition, and all groups weigh the same: each mean above is then the mean
over pairs of groups of their own means. Images drawn per condition are no sample of a mixture, because two of
them are of one condition too rarely: the formula over all of them is below 0 where it should be 0 (-0.005 for
halves of the digits' pixels). It would also count as distance that real classes differ in size. For one group
it is the formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from unweave.audits.score import Interval

BLOCKS = 10
FEWEST = 20
"""Images in each group, at least: two in each block that is left out."""

Rows = Float64[np.ndarray, "_ _"]  # checked here: groups differ in length, and spaces may be mixed up
Groups = Sequence[Rows]


def kid(first: Groups, second: Groups, *, paired: bool = False) -> float:
    """Unbiased MMD^2 of two sets of features; invariant to the order within each group and of the groups.

    Args:
        first: Features, per condition.
        second: The same of another set.
        paired: Whether row i of a group belongs to row i of the other set's group; both then keep one order.

    Raises:
        ValueError: If a group has fewer than 20 rows, or pairs are asked for and there are none.
    """
    return _Sums.of(first, second, paired=paired).kid(np.ones(BLOCKS, dtype=bool))


def kid_interval(first: Groups, second: Groups) -> Interval:
    """`kid` with the 95 % t interval of a jackknife that leaves out one tenth of all groups at a time.

    The variance of a jackknife is too large on average, never too small (Efron and Stein, 1981); a bootstrap
    would draw images twice and find them near to themselves. Row i of a group is in block i mod 10, so that
    images of the same seeds leave together.
    """
    from scipy.special import stdtrit

    sums = _Sums.of(first, second)
    value = sums.kid(np.ones(BLOCKS, dtype=bool))
    left = np.array([sums.kid(np.arange(BLOCKS) != block) for block in range(BLOCKS)])
    error = np.sqrt((BLOCKS - 1) / BLOCKS * np.square(left - left.mean()).sum())
    reach = float(stdtrit(BLOCKS - 1, 0.975) * error)
    return Interval(value, value - reach, value + reach)


def kernel(first: Rows, second: Rows) -> Float64[np.ndarray, "_ _"]:
    """(x . y / d + 1)^3 of every pair of rows."""
    base = first @ second.T / first.shape[1] + 1
    return base * base * base  # numpy's power takes many times as long


@dataclass(frozen=True)
class _Cells:
    """One set, cut into groups and these into blocks.

    Args:
        rows: All of it, cell after cell.
        sizes: Rows per cell.
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
        within: Of the first set with itself, and of the second.
        between: Of the first set with the second.
        sizes: Rows per cell, of each set.
        paired: Whether the sums between leave out pairs of one place.
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
            raise ValueError("paired sets must have groups of one length, found others")
        between = _between(ours, theirs) - (_diagonal(ours, theirs) if paired else 0)
        return cls((_within(ours), _within(theirs)), between, (ours.sizes, theirs.sizes), paired)

    def kid(self, kept: Bool[np.ndarray, " block"]) -> float:
        """The unbiased estimate from some of the blocks."""
        n, m = (sizes[:, kept].sum(axis=1) for sizes in self.sizes)
        own = sum(
            (_over(sums, kept) / (np.outer(sizes, sizes) - np.diag(sizes))).mean()
            for sums, sizes in zip(self.within, (n, m), strict=True)
        )
        pairs = np.outer(n, m) - (np.diag(n) if self.paired else 0)
        return float(own - 2 * (_over(self.between, kept) / pairs).mean())


def _over(sums: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Sums over pairs of groups, of the blocks that are kept."""
    return sums[:, kept][..., kept].sum(axis=(1, 3))


def _between(ours: _Cells, theirs: _Cells) -> np.ndarray:
    cells = np.split(ours.rows, ours.starts[1:])
    sums = [np.add.reduceat(kernel(cell, theirs.rows).sum(axis=0), theirs.starts) for cell in cells]
    return np.array(sums).reshape(*ours.sizes.shape, *theirs.sizes.shape)


def _within(cells: _Cells) -> np.ndarray:
    return _between(cells, cells) - _diagonal(cells, cells)


def _diagonal(ours: _Cells, theirs: _Cells) -> np.ndarray:
    """Sums of the kernel over pairs of one place, per cell."""
    each = ((ours.rows * theirs.rows).mean(axis=1) + 1) ** 3
    return np.diag(np.add.reduceat(each, ours.starts)).reshape(ours.sizes.shape * 2)

"""Scores: means over seeds with intervals, compared with retrained models, and the tests behind claims.

The unit of replication is the seed (one trained and one unlearned model), never the example: five thousand
examples of one model are not five thousand replicates.

The displayed interval of a share is Student's on the logit scale (`interval`). The tests of a verdict are
about differences, which are not limited to a range, and use Student's interval itself (`t_interval`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from jaxtyping import Int64

from unweave.audits.metrics import Direction

FEWEST = 3
"""The fewest seeds for an interval: Student's factor is 12.7 with two seeds, and 4.3 with three."""
Z = 1.959963984540054
"""The 97.5 % quantile of the Gaussian distribution: standard errors of a 95 % interval."""
UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True)
class Score:
    """One figure of a table, in the unit of its metric; NaN if it cannot be computed.

    Args:
        value: Mean over seeds.
        low: Lower end of the 95 % interval of the mean (`interval`); NaN with fewer than `FEWEST` seeds.
        high: Upper end.
        n: Number of seeds.
        reference: Mean of the retrained models; None without them. For a metric that compares two models: its
            mean between two retrained models.
        null_band: The range of retrained models: the mean of the calibration retrains plus and minus the 95 %
            quantile of the difference of two of them; for a metric of two models, the central 95 % of their
            pairs.
        gap: Value minus reference: the mean of the paired differences.
        direction: The direction of a good model (see `Metric`).
    """

    value: float
    low: float
    high: float
    n: int
    reference: float | None
    null_band: tuple[float, float] | None
    gap: float | None
    direction: Direction


@dataclass(frozen=True)
class Interval:
    """An estimate from one model's answers and its 95 % interval, in the unit of the estimate.

    Args:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """A share of n, with its 95 % interval.

    Args:
        successes: The number of successes.
        n: The number of trials, at least one.
        exact: Whether the interval is Clopper and Pearson's; Wilson's if not.
    """

    successes: int
    n: int
    exact: bool = False

    def __post_init__(self) -> None:
        self.interval()  # raises if this is no share

    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return (clopper_pearson if self.exact else wilson)(self.successes, self.n)

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.successes / self.n

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.interval()[0]

    @property
    def high(self) -> float:
        """Upper end."""
        return self.interval()[1]


@dataclass(frozen=True)
class Comparison:
    """The test whether the gaps of two methods differ over paired seeds.

    Args:
        difference: Mean of (ours - theirs); negative means that ours are smaller.
        p: Two-sided exact Wilcoxon signed-rank p.
        adjusted: The same after Holm's correction over all comparisons made together.
    """

    difference: float
    p: float
    adjusted: float


def score(
    values: Sequence[float],
    reference: float | None,
    *,
    direction: Direction,
    null_band: tuple[float, float] | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Score:
    """The score of one metric over seeds, with the mean of the retrained models; `bounds` is its range."""
    mean = float(np.mean(values))
    low, high = interval(values, bounds)
    gap = None if reference is None else mean - reference
    return Score(mean, low, high, len(values), reference, null_band, gap, direction)


def interval(values: Sequence[float], bounds: tuple[float, float] = UNBOUNDED) -> tuple[float, float]:
    r"""The displayed interval of a mean; NaN with fewer than `FEWEST` values.

    Without a range it is Student's. For a share p in [0, 1] it is Student's for the logit, with the standard
    error s of p propagated to first order,

    .. math:: \operatorname{logit}^{-1}(\operatorname{logit} p \pm t_{n-1} s / (p (1 - p))),

    which never leaves the range. Survey statistics use it for the mean of few clusters: method "xlogit" of
    `svyciprop` in Lumley's R package survey, and `svy: tabulate` in Stata.

    Args:
        values: One value per seed, in the metric's unit.
        bounds: The smallest and the largest value; infinite without a range.
    """
    from scipy.special import expit, logit

    if len(values) < FEWEST:
        return float("nan"), float("nan")
    (least, most), ends = bounds, t_interval(values)
    width = most - least
    if np.isfinite(width):
        p, reach = (np.mean(values) - least) / width, (ends[1] - ends[0]) / 2 / width
        if reach > 0 and 0 < p < 1:  # otherwise no value differs, or one is NaN
            ends = least + width * expit(logit(p) + np.array([-1, 1]) * reach / (p * (1 - p)))
    return float(ends[0]), float(ends[1])


def t_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """The two-sided Student interval of the mean; NaN with fewer than two values."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return float("nan"), float("nan")
    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    reach = stdtrit(len(values) - 1, (1 + level) / 2) * error
    return float(mean - reach), float(mean + reach)


def wilcoxon(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Two-sided p of the paired signed-rank test; 1 if no pair differs."""
    from scipy.stats import wilcoxon as signed_rank

    differences = np.subtract(ours, theirs)
    if not differences.any():
        return 1.0
    return float(signed_rank(differences).pvalue)  # pyright: ignore[reportAttributeAccessIssue]  (scipy has no types)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjustment: the i-th smallest of m p-values times m - i + 1, made monotone, at most 1."""
    names = sorted(p, key=lambda name: p[name])
    steps = accumulate((p[name] * (len(names) - i) for i, name in enumerate(names)), max)
    return {name: min(1.0, step) for name, step in zip(names, steps, strict=True)}


def compare(ours: Sequence[float], theirs_by_name: Mapping[str, Sequence[float]]) -> dict[str, Comparison]:
    """Tests one method's per-seed gaps against every other method's, corrected by Holm over the others."""
    p = {name: wilcoxon(ours, theirs) for name, theirs in theirs_by_name.items()}
    adjusted_p = holm(p)
    return {
        name: Comparison(float(np.mean(np.subtract(ours, theirs))), p[name], adjusted_p[name])
        for name, theirs in theirs_by_name.items()
    }


def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """The exact two-sided interval of a rate."""
    from scipy.special import betaincinv

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, found {successes} of {n}")
    tail = (1 - 0.95) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a rate, both ends in [0, 1]."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, found {successes} of {n}")
    z2 = Z**2
    middle = (successes + z2 / 2) / (n + z2)
    reach = np.sqrt(z2 * (successes * (n - successes) / n + z2 / 4)) / (n + z2)
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))


def bootstrap(
    n: int,
    statistic: Callable[[Int64[np.ndarray, " n"]], float],
    *,
    rng: np.random.Generator,
) -> Interval:
    """A statistic of n rows and its percentile interval over rows drawn with replacement.

    Not for statistics of pairs of rows, such as a kernel distance: a row drawn twice is its own nearest
    neighbour.

    Args:
        n: Number of rows, at least two.
        statistic: Computes the figure from the positions of rows.
        rng: Draws the rows.
    """
    if n < 2:
        raise ValueError(f"a bootstrap needs at least two rows, found {n}")
    statistics = [statistic(rng.integers(n, size=n)) for _ in range(1000)]
    low, high = np.quantile(statistics, [0.025, 0.975])
    return Interval(statistic(np.arange(n)), float(low), float(high))

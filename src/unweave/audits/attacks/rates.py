"""True-positive rates at small false-positive rates, with exact intervals.

An attack that is right about a few records and silent about the others is a breach that an average hides
(Carlini et al., 2022, arXiv 2112.03570).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class ExactShare:
    """A share of n with its exact 95 % interval (Clopper and Pearson, 1934).

    Args:
        successes: The number of successes.
        n: The number of trials, at least one.
    """

    successes: int
    n: int

    def __post_init__(self) -> None:
        clopper_pearson(self.successes, self.n)  # raises if this is no share

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.successes / self.n

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return clopper_pearson(self.successes, self.n)[0]

    @property
    def high(self) -> float:
        """Upper end."""
        return clopper_pearson(self.successes, self.n)[1]


@dataclass(frozen=True)
class Rates:
    """What an attack with one threshold achieves.

    Args:
        threshold: An example is called a member if its score is larger.
        tpr: The share of members called members.
        fpr: The share of non-members called members, at most the wanted one.
    """

    threshold: float
    tpr: ExactShare
    fpr: ExactShare


def tpr_at_fpr(
    members: Float64[np.ndarray, " member"], others: Float64[np.ndarray, " other"], fpr: float
) -> Rates:
    """The rates at the lowest threshold that calls at most a share `fpr` of the non-members members.

    Args:
        members: The scores of members; larger means more like a member.
        others: The scores of non-members, which fix the threshold.
        fpr: The false-positive rate, in (0, 1).

    Raises:
        ValueError: If the non-members are too few for a single one of them to be a false positive.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"a false-positive rate must be in (0, 1), found {fpr}")
    allowed = math.floor(fpr * len(others) + 1e-9)
    if allowed < 1:
        raise ValueError(
            f"a false-positive rate of {fpr:g} needs at least {math.ceil(1 / fpr)} non-members, found "
            f"{len(others)}: ask for {1 / max(1, len(others)):.2g} or more"
        )
    threshold = float(np.sort(others)[::-1][allowed])
    caught, false = int((members > threshold).sum()), int((others > threshold).sum())
    return Rates(threshold, ExactShare(caught, len(members)), ExactShare(false, len(others)))


def clopper_pearson(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a rate."""
    from scipy.special import betaincinv

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, found {successes} of {n}")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def delong(
    members: Float64[np.ndarray, " member"], others: Float64[np.ndarray, " other"]
) -> tuple[float, float, float]:
    """The AUC of members against others and its 95 % interval (DeLong et al., 1988), ends in [0, 1].

    Raises:
        ValueError: With fewer than two examples of either kind.
    """
    if min(len(members), len(others)) < 2:
        raise ValueError(
            f"an AUC with an interval needs two examples of each kind, found {len(members)}, {len(others)}"
        )
    per_member, per_other = placements(members, others), 1 - placements(others, members)
    area = float(per_member.mean())
    variance = per_member.var(ddof=1) / len(members) + per_other.var(ddof=1) / len(others)
    reach = 1.959963984540054 * math.sqrt(variance)
    return area, max(0.0, area - reach), min(1.0, area + reach)


def placements(
    ours: Float64[np.ndarray, " ours"], theirs: Float64[np.ndarray, " theirs"]
) -> Float64[np.ndarray, " ours"]:
    """The share of theirs below each of ours; equal values count as one half."""
    ordered = np.sort(theirs)
    below, not_above = (np.searchsorted(ordered, ours, side=side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(theirs))

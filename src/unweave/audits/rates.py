"""True-positive rates at small false-positive rates, with exact intervals.

An attack that is right about a few records and silent about the others is a breach that an average hides
(Carlini et al., 2022, arXiv 2112.03570).
"""

import math

import numpy as np
from jaxtyping import Float64

from unweave.audits.score import Share, Z


def tpr_at_fpr(
    members: Float64[np.ndarray, " member"], others: Float64[np.ndarray, " other"], fpr: float
) -> tuple[float, Share]:
    """The lowest threshold that takes at most a share `fpr` of others for members, and the share it catches.

    Args:
        members: The scores of members; larger means more like a member.
        others: The scores of non-members, which fix the threshold.
        fpr: The false-positive rate, in (0, 1).

    Raises:
        ValueError: If the non-members are too few for a single one of them to be a false positive.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"a false-positive rate must be in (0, 1), found {fpr}")
    false_positives = math.floor(fpr * len(others) + 1e-9)
    if false_positives < 1:
        raise ValueError(
            f"a false-positive rate of {fpr:g} needs at least {math.ceil(1 / fpr)} non-members, found "
            f"{len(others)}: ask for {1 / max(1, len(others)):.2g} or more"
        )
    threshold = float(np.sort(others)[::-1][false_positives])
    return threshold, Share(int((members > threshold).sum()), len(members), exact=True)


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
    reach = Z * math.sqrt(variance)
    return area, max(0.0, area - reach), min(1.0, area + reach)


def placements(
    ours: Float64[np.ndarray, " ours"], theirs: Float64[np.ndarray, " theirs"]
) -> Float64[np.ndarray, " ours"]:
    """The share of theirs below each of ours; equal values count as one half."""
    sorted_theirs = np.sort(theirs)
    below, not_above = (np.searchsorted(sorted_theirs, ours, side=side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(theirs))

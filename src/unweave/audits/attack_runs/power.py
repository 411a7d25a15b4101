"""The smallest shift that an audit's attacks would show, in a sentence."""

import math
from collections.abc import Mapping

from unweave.audits.attack_result import AttackResult

MEMBERSHIP = ("forget-vs-unseen", "auc of margin")
"""The attack and the figure whose shift also has a size in standard deviations."""
DETECTABLE = 2.802
"""The shift, in standard errors, that a two-sided test at .05 shows with a power of 80 %: 1.960 + 0.842."""

Results = Mapping[str, Mapping[str, AttackResult]]


def power_sentence(results: Results, records: int, unseen: int) -> str:
    """The smallest shift that shows in four of five audits: from the margins, or else from the examples.

    Args:
        results: By attack and figure.
        records: The number of forget examples.
        unseen: The number of held-out examples that they are compared with.
    """
    shifts = {
        (attack, figure): result.shows_from
        for attack, figures in results.items()
        for figure, result in figures.items()
        if result.shows_from is not None
    }
    if not shifts:
        error = chance_error(records, unseen)
        shift = DETECTABLE * error
        return (
            f"With {records} records against {unseen} unseen ones, an AUC of 1/2 has a standard error of "
            f"{error:.3f}: the smallest shift that shows is {shift:.3f}, "
            f"{deviations(shift):.2f} standard deviations of the margin. It may have other causes."
        )
    key = MEMBERSHIP if MEMBERSHIP in shifts else min(shifts, key=lambda each: shifts[each])
    attack, figure = key
    shift = shifts[key]
    size = f", {deviations(shift):.2f} standard deviations of the margin" if key == MEMBERSHIP else ""
    return f"With {records} records the smallest shift that shows is {shift:.3f} ({attack}, {figure}){size}."


def chance_error(members: int, non_members: int) -> float:
    """The standard error of an AUC where there is nothing to find (Mann and Whitney, 1947)."""
    return math.sqrt((members + non_members + 1) / (12 * members * non_members))


def deviations(shift: float) -> float:
    """The distance of two Gaussians, in standard deviations, whose AUC is above 1/2 by a shift."""
    from scipy.special import ndtri

    return math.sqrt(2) * float(ndtri(min(0.5 + shift, 1 - 1e-12)))

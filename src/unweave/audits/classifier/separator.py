"""The support vector classifier of many numbers in [0, 1]: its time grows with their number alone.

On numbers the kernel exp(-(x - y)^2) is a sum over few features, sum_k phi_k(x) phi_k(y) with
phi_k(x) = sqrt(2^k / k!) x^k exp(-x^2). So the fit has as many unknowns as features, and an interior-point
method ends it in tens of passes over the numbers (Ferris and Munson, "Interior-point methods for massive
support vector machines", 2002, https://doi.org/10.1137/S1052623400374379).
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float64

Points = Float64[np.ndarray, " point"]
Rows = Float64[np.ndarray, "point feature"]
Weights = Float64[np.ndarray, " feature"]

FEATURES = 25
"""Number of features; those left out add less than 1e-17 to the kernel on [0, 1]."""

TOLERANCE = 1e-9
"""The duality gap at which the fit ends, per point and unit of cost."""

STEPS = 300
"""Number of passes after which the fit fails; the hardest data tried took 88."""

INSIDE = 0.995
"""The share of the way to the nearest bound that a step goes at most."""


def fit_separator(points: Points, signs: Points, *, cost: float) -> Callable[[Points], Points]:
    """Fits what scikit-learn's `SVC(C=cost, gamma=1)` fits; returns the decision function.

    Args:
        points: Numbers in [0, 1].
        signs: 1 for the class of positive decisions, -1 for the other.
        cost: The price of a unit of distance on the wrong side.

    Raises:
        ArithmeticError: If the fit does not end.
    """
    rows = features(points)
    weights = solve(signs[:, None] * rows, signs, cost)
    decisions = rows[:, :-1] @ weights[:-1]
    offset = best_offset(decisions, signs)
    return lambda queries: features(queries)[:, :-1] @ weights[:-1] + offset


def features(points: Points) -> Rows:
    """The features of each number, and a 1."""
    k = np.arange(FEATURES)
    scales = np.sqrt([2.0**each / math.factorial(each) for each in range(FEATURES)])
    columns = scales * points[:, None] ** k * np.exp(-(points**2))[:, None]
    return np.column_stack([columns, np.ones(len(points))])


def best_offset(decisions: Points, signs: Points) -> float:
    """The middle of the offsets of least cost, as in libsvm; without a point on the margin there are many."""
    positive = int((signs > 0).sum())
    low, high = np.partition(signs - decisions, [positive - 1, positive])[positive - 1 : positive + 1]
    return float(low + high) / 2


def solve(rows: Rows, signs: Points, cost: float) -> Weights:
    """The w that minimises |w'|^2 / 2 + cost sum_i max(0, 1 - (rows w)_i), where w' lacks w's last entry.

    At the end every `dual` times `beyond` and every `room` times `short` is near zero: `dual` is the force of
    a point, between 0 and `cost`, and `room` what it lacks of `cost`; `beyond` is how far the point lies
    beyond the margin, and `short` how far it falls short.
    """
    ridge = np.diag(np.append(np.ones(rows.shape[1] - 1), 0.0))
    dual = balanced_forces(signs) * cost / 2
    weights = ridge @ (rows.T @ dual)
    beyond = np.maximum(rows @ weights - 1, 0) + 1
    short = beyond - (rows @ weights - 1)
    shrink = 0.1
    for _ in range(STEPS):
        room = cost - dual
        gap = beyond @ dual + short @ room
        if gap < TOLERANCE * cost * len(rows):
            return weights
        aim = shrink * gap / (2 * len(rows))
        stiffness = 1 / (beyond / dual + short / room)
        lack = 1 - rows @ weights + aim / dual - aim / room
        weighted_rows = rows * stiffness[:, None]
        force = weighted_rows.T @ lack - ridge @ weights + rows.T @ dual
        move = np.linalg.solve(ridge + rows.T @ weighted_rows, force)
        dual_move = stiffness * (lack - rows @ move)
        beyond_move = (aim - beyond * dual_move) / dual - beyond
        short_move = (aim + short * dual_move) / room - short
        moves = ((dual, dual_move), (room, -dual_move), (beyond, beyond_move), (short, short_move))
        share = longest_step(moves)
        shrink = 0.1 if share > 0.5 else 0.5  # a short step was too bold
        weights, dual = weights + share * move, dual + share * dual_move
        beyond, short = beyond + share * beyond_move, short + share * short_move
    raise ArithmeticError(f"the support vector classifier of {len(rows)} points did not end in {STEPS} steps")


def balanced_forces(signs: Points) -> Points:
    """Forces of at most 1 that add up to the same for both classes."""
    positive, negative = (signs > 0).sum(), (signs < 0).sum()
    return min(positive, negative) / np.where(signs > 0, positive, negative)


def longest_step(moves: Iterable[tuple[Points, Points]]) -> float:
    """The largest share of these moves, at most 1, that keeps every value positive."""
    limits = [(-value[move < 0] / move[move < 0]).min(initial=np.inf) for value, move in moves]
    return min(1.0, INSIDE * min(limits))

"""The forgetting quality of the NeurIPS 2023 challenge (Triantafillou et al.), https://arxiv.org/abs/2406.09073.

For each forget example, N margins of unlearned models are told from N margins of retrained models by every
rule with one threshold and by every interval. A rule with the rates FPR and FNR shows

    epsilon = max(log(1 - delta - FPR) - log FNR, log(1 - delta - FNR) - log FPR),

the loss of differential privacy, and an example counts by its worst rule:

    h = 2^-floor(epsilon / 0.5),  or 0 from epsilon = ceil(log(N - 1)) on;    F = mean of h.

The largest of many empirical rules is biased upwards: models of one distribution have an F of about 0.1, not
1. So the figure is F / F_null, with F_null between two halves of the retrained models. Both are taken with
N / 2 models of each kind, because F also depends on their number.

As in the released code: rules with exactly one rate of zero are dropped, one that separates all counts as 50,
and so does an example with a spread of one kind below 1 % of the other's. Unlike it: thresholds are the
values themselves, not a grid of 0.01 nats.
"""

import math

import numpy as np
from jaxtyping import Float64

from unweave.audits.attack import Attack
from unweave.audits.attack_result import (
    AttackResult,
    halvings,
    refuse_unpaired,
    spread_band,
)
from unweave.audits.score import Z, bootstrap, clopper_pearson

FEWEST = 32
DELTA = 1e-5
CAP = 50.0
BUCKET = 0.5
PEAKED = 0.01
RULES = 4_000_000
"""Rules of all examples in memory at once."""
TINY = 1e-12
CANNOT = (
    "A guarantee: epsilon is a lower bound from finitely many models, and with N of each kind none above "
    "`largest_epsilon(N)` can be shown; it is about margins of the forget set alone."
)

Margins = Float64[np.ndarray, "_ _"]  # [model, example]; the two kinds are checked against each other
PerExample = Float64[np.ndarray, "_"]
Halves = Float64[np.ndarray, "_ _"]  # [halving, example]


def forgetting_quality(unlearned: Margins, retrained: Margins) -> AttackResult:
    """F / F_null; 1 for a method that equals retraining, 0 for one that every example gives away.

    `besides` has "F" as published, with all N models, "F_null" of halves, and the "largest epsilon" that N
    models can show.

    Args:
        unlearned: The margins of the forget examples by unlearned models, each from an original of its own.
        retrained: Their margins by as many retrained models.

    Raises:
        ValueError: If there are fewer than 32 models of a kind, other numbers of models or examples, or NaN.
    """
    refuse_unpaired("the forgetting quality", FEWEST, unlearned, retrained)
    ours, null = points_of_halves(unlearned, retrained)
    value, reach = ratio(ours, null), half_width(ours, null)
    return AttackResult(
        value,
        max(0.0, value - reach),
        value + reach,
        1.0,
        spread_band((null.mean(axis=1) / null.mean()).tolist()),
        CANNOT,
        besides={
            "F": float(points(unlearned, retrained).mean()),
            "F_null": float(null.mean()),
            "largest epsilon": largest_epsilon(len(unlearned)),
        },
    )


def points_of_halves(unlearned: Margins, retrained: Margins) -> tuple[Halves, Halves]:
    """h of each example, of half the unlearned and of half the retrained models against the other half."""
    halves = halvings(len(retrained), np.random.default_rng(0))
    pairs = [(unlearned, retrained), (retrained, retrained)]
    ours, null = (
        np.array([points(kind[one], reference[other]) for one, other in halves]) for kind, reference in pairs
    )
    return ours, null


def ratio(ours: Halves, null: Halves) -> float:
    """F / F_null."""
    return float(ours.mean() / max(null.mean(), TINY))


def half_width(ours: Halves, null: Halves) -> float:
    """Half the width of the 95 % interval, over models and over examples.

    All examples share the models: an interval over examples alone is far too narrow if some models are surer
    of everything than others. A random half varies as much around the mean of halves as all models do around
    their expectation. The spread of F_null over models is left out.
    """
    rng = np.random.default_rng(0)
    examples = bootstrap(ours.shape[1], lambda rows: ratio(ours[:, rows], null[:, rows]), rng=rng)
    models = float(ours.mean(axis=1).std(ddof=1) / max(null.mean(), TINY))
    return math.hypot(Z * models, (examples.high - examples.low) / 2)


def points(unlearned: Margins, retrained: Margins) -> PerExample:
    """h of each example, in [0, 1]."""
    limit = math.ceil(math.log(len(unlearned) - 1))
    values = epsilons(unlearned, retrained)
    return np.where(values < limit, 2.0 ** -np.floor(values / BUCKET), 0.0)


def epsilons(one: Margins, other: Margins) -> PerExample:
    """The epsilon of the best rule that tells the two sets of each example apart, in [0, 50]."""
    spreads = np.ptp(one, axis=0), np.ptp(other, axis=0)
    larger, smaller = np.maximum(*spreads), np.minimum(*spreads)
    values = np.where(smaller < PEAKED * larger, CAP, 0.0)
    values[(larger == 0) & (one[0] != other[0])] = CAP
    open_examples = np.flatnonzero((values == 0) & (larger > 0))
    block = max(1, RULES // (len(one) + len(other)) ** 2)
    for rows in np.split(open_examples, range(block, len(open_examples), block)):
        pair = one[:, rows], other[:, rows]
        swap = np.median(pair[0], axis=0) <= np.median(pair[1], axis=0)
        values[rows] = best_rule(*rates(*swap_sides(*pair, swap), above_only=True))
        swap = spreads[0][rows] >= spreads[1][rows]
        values[rows] = np.maximum(values[rows], best_rule(*rates(*swap_sides(*pair, swap), above_only=False)))
    return values


def swap_sides(one: np.ndarray, other: np.ndarray, swap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positive and the negative set of each example: the two, or the two the other way round."""
    return np.where(swap, other, one), np.where(swap, one, other)


def rates(positive: np.ndarray, negative: np.ndarray, *, above_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """FPR and FNR of each rule, both [rule, example].

    The rules are "positive from a value on", or also "positive from a value on and below another".
    """
    values = np.concatenate([positive, negative])
    order = values.argsort(axis=0, kind="stable")
    ascending = np.take_along_axis(values, order, axis=0)
    first = np.diff(ascending, axis=0, prepend=-np.inf) > 0  # of equal values; no rule lies between them
    of_negative = order >= len(positive)
    shares = share_below(of_negative, first), share_below(~of_negative, first)
    if above_only:
        return 1 - shares[0][:-1], shares[1][:-1]
    low, high = np.triu_indices(len(shares[0]), k=1)
    return shares[0][high] - shares[0][low], 1 - (shares[1][high] - shares[1][low])


def share_below(mine: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The share of a set below each value of both sets, and below infinity, [value + 1, example].

    Args:
        mine: Whether a value is of the set, [value, example] in ascending order.
        first: Whether it is the first of equal values.
    """
    counts = np.concatenate([np.zeros((1, mine.shape[1])), mine.cumsum(axis=0)])
    cuts = np.concatenate([first, np.ones((1, mine.shape[1]), dtype=bool)])
    return np.maximum.accumulate(np.where(cuts, counts, 0), axis=0) / mine.sum(axis=0)


def best_rule(fpr: np.ndarray, fnr: np.ndarray) -> PerExample:
    """The largest epsilon of the rules of each example; one rate of zero alone shows too few models."""
    fpr, fnr = (np.where(np.abs(rate) < TINY, 0.0, rate) for rate in (fpr, fnr))
    has_errors = (fpr > 0) & (fnr > 0)
    complements = np.maximum(1 - DELTA - np.stack([fpr, fnr]), TINY)
    candidates = np.log(complements / np.where(has_errors, np.stack([fnr, fpr]), 1.0)).max(axis=0)
    best = np.where(has_errors, candidates, 0.0).max(axis=0, initial=0.0)
    return np.where(((fpr == 0) & (fnr == 0)).any(axis=0), CAP, best)


def largest_epsilon(models: int) -> float:
    """The largest epsilon that N models of each kind can show with 97.5 % confidence: all are told apart."""
    error = clopper_pearson(0, models)[1]
    return math.log((1 - DELTA - error) / error)


ATTACK = Attack(
    name="forgetting-quality",
    paper="Triantafillou et al., 2024, arXiv 2406.09073",
    evidence="margins of many unlearned models and of as many retrained ones",
    tier=3,
    fewest=FEWEST,
    function_cost="N originals, N unlearnings and N retrainings; N = 64 screens",
    says="How few rules tell unlearned from retrained models, example by example; 1 is as retraining.",
    cannot=CANNOT,
    above=None,
    below="under- or over-forgetting",
    function="unweave.audits.attacks.forgetting_quality.forgetting_quality",
)

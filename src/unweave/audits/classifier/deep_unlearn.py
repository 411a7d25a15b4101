"""The figures of the benchmark Deep Unlearn (Cadet et al., arXiv 2410.01276), and its published order.

A retention is an accuracy relative to that of the retrained model, best at 1. The attack separates forget
from unseen examples by their loss alone: a logistic regression on equal numbers of both, with the mean
accuracy of ten stratified random splits that hold out a tenth. Indiscernibility, 1 - |accuracy - 1/2| /
(1/2), is 1 if the attack guesses and 0 if it is always right or always wrong. The benchmark's validation set
is our calibration set; T-MIA uses the test set. Speed-up is the time of retraining divided by that of the
method.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Int64

from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.logits import is_correct, loss

SPLITS = 10
HELD_OUT = 0.1
RETENTIONS = ("retain_retention", "forget_retention", "test_retention")
FIRST, LAST = ("msg", "ct"), ("ascent", "random-label")
MIDDLE = (
    *("finetune", "neggrad+", "bad-teacher", "salun", "scrub", "influence", "fisher-forgetting"),
    *("cf-k", "eu-k", "fcs", "cfw", "prmq", "kde", "rni"),
)
"""The published order, as far as known: the first methods, the last, and those between, unordered."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of an order with the published one.

    Args:
        tau: Kendall's rank correlation over the pairs that the published order decides; NaN without any.
        pairs: The number of these pairs.
    """

    tau: float
    pairs: int


def figures(evidence: Evidence, reference: Evidence) -> dict[str, float]:
    """All figures of one model without the speed-up.

    Classes forgotten whole are left out of the retain set and the test set, as in RA and TA, and the attack
    compares F with unseen examples of these classes only. A retention is NaN if the retrained model is never
    right.
    """
    evidence = evidence.like(reference)
    return {
        "retain_retention": ratio(accuracy(evidence, "retain"), accuracy(reference, "retain")),
        "forget_retention": ratio(accuracy(evidence, "forget"), accuracy(reference, "forget")),
        "test_retention": ratio(accuracy(evidence, "test"), accuracy(reference, "test")),
        "indiscernibility": part_indiscernibility(evidence, "calibration"),
        "t_mia": part_indiscernibility(evidence, "test"),
    }


def part_indiscernibility(evidence: Evidence, part: HeldOut) -> float:
    """The indiscernibility of F from a held-out part."""
    forget = loss(evidence.logits["forget"], evidence.labels["forget"])
    return indiscernibility(forget, unseen_losses(evidence, part))


def accuracy(evidence: Evidence, part: str) -> float:
    """The share of right answers."""
    examples = evidence.logits[part], evidence.labels[part]
    return float(
        is_correct(*(examples if part == "forget" else evidence.without_forgotten_classes(part))).mean()
    )


def ratio(ours: float, theirs: float) -> float:
    """Ours divided by theirs; NaN if theirs is zero."""
    return ours / theirs if theirs else math.nan


def unseen_losses(evidence: Evidence, part: str) -> Float64[np.ndarray, " unseen"]:
    """The losses of the held-out examples to compare F with, in nats."""
    labels, classes = evidence.labels[part], evidence.forgotten_classes
    rows = np.isin(labels, classes) if classes else np.ones(len(labels), dtype=bool)
    return loss(evidence.logits[part][rows], labels[rows])


def indiscernibility(forget: Float64[np.ndarray, " forget"], unseen: Float64[np.ndarray, " unseen"]) -> float:
    """The indiscernibility of two sets of losses, in [0, 1].

    It is NaN with fewer than two examples of either, or if a loss is not finite.
    """
    if min(len(forget), len(unseen)) < 2:
        return math.nan
    return 1 - abs(attack_accuracy(forget, unseen) - 0.5) / 0.5


def attack_accuracy(forget: Float64[np.ndarray, " forget"], unseen: Float64[np.ndarray, " unseen"]) -> float:
    """The accuracy of the attack; deterministic, and NaN if a loss is not finite."""
    if not np.isfinite(forget).all() or not np.isfinite(unseen).all():
        return math.nan
    n, rng = min(len(forget), len(unseen)), np.random.default_rng(0)
    draws = [np.sort(rng.permutation(len(losses))[:n]) for losses in (forget, unseen)]
    losses = np.concatenate([forget[draws[0]], unseen[draws[1]]])
    truth = np.repeat([1.0, 0.0], n)
    shares: list[float] = []
    for train_rows, test_rows in balanced_splits(n):
        slope, offset = fit_logistic(losses[train_rows], truth[train_rows])
        shares.append(float(((slope * losses[test_rows] + offset > 0) == truth[test_rows]).mean()))
    return float(np.mean(shares))


@cache
def balanced_splits(n: int) -> tuple[tuple[Int64[np.ndarray, " fitted"], Int64[np.ndarray, " tested"]], ...]:
    """The positions that each split fits and those that it holds out, of n examples of either kind."""
    from sklearn.model_selection import StratifiedShuffleSplit

    truth, held_out = np.repeat([1, 0], n), max(2, math.ceil(HELD_OUT * 2 * n))
    return tuple(StratifiedShuffleSplit(SPLITS, test_size=held_out, random_state=0).split(truth, truth))


def fit_logistic(
    losses: Float64[np.ndarray, " example"], truth: Float64[np.ndarray, " example"]
) -> Float64[np.ndarray, "2"]:
    """The slope and the offset that scikit-learn's `LogisticRegression()` fits, without its checks.

    It minimises the mean of log(1 + exp(z)) - y z plus slope^2 / (2 n), z = slope x + offset, by the same
    steps: the solver, its tolerances and its start are those of the class.

    Args:
        losses: x, the only feature.
        truth: y, 1 or 0.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    n = len(losses)

    def value_and_slopes(at: Float64[np.ndarray, "2"]) -> tuple[float, Float64[np.ndarray, "2"]]:
        z = at[0] * losses + at[1]
        error = expit(z) - truth
        value = (np.logaddexp(0, z).sum() - truth @ z) / n + at[0] ** 2 / (2 * n)
        return value, np.array([(error @ losses + at[0]) / n, error.sum() / n])

    options = {"maxiter": 1000, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}
    return minimize(value_and_slopes, np.zeros(2), method="L-BFGS-B", jac=True, options=options).x


def agreement(ranks: Mapping[str, float]) -> Agreement:
    """Compares an order with the published one; a pair of tied methods counts for neither side.

    Args:
        ranks: The rank of each method, smaller is better; methods outside the benchmark are ignored.
    """
    tiers = {name: tier for tier, names in enumerate((FIRST, MIDDLE, LAST)) for name in names}
    methods = [name for name in ranks if name in tiers]
    pairs = [(one, other) for one, other in combinations(methods, 2) if tiers[one] != tiers[other]]
    signs = [np.sign(ranks[one] - ranks[other]) * np.sign(tiers[one] - tiers[other]) for one, other in pairs]
    return Agreement(float(np.mean(signs)) if signs else math.nan, len(pairs))

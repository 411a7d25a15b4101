"""The figures of the benchmark Deep Unlearn (Cadet et al., arXiv 2410.01276), and its published order.

A retention is an accuracy relative to the retrained model's, best at 1. The attack tells forget from unseen
examples by their loss alone: a logistic regression on as many of either, its accuracy the mean over ten
stratified random splits that hold out a tenth. Indiscernibility, 1 - |accuracy - 1/2| / (1/2), is 1 where the
attack guesses and 0 where it is always right, or always wrong. The benchmark's validation part is our
calibration part; T-MIA is the same beside the test part. Speed-up is retraining's time over the method's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64

from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.logits import correct, loss

SPLITS = 10
HELD_OUT = 0.1
RETENTIONS = ("retain_retention", "forget_retention", "test_retention")
FIRST, LAST = ("msg", "ct"), ("ascent", "random-label")
MIDDLE = (
    *("finetune", "neggrad+", "bad-teacher", "salun", "scrub", "influence", "fisher-forgetting"),
    *("cf-k", "eu-k", "fcs", "cfw", "prmq", "kde", "rni"),
)
"""What is known of the published order: who is first, who is last, and who lies between, unordered."""


@dataclass(frozen=True)
class Agreement:
    """How well an order agrees with the published one.

    Args:
        tau: Kendall's rank correlation over the pairs that the published order decides; NaN without any.
        pairs: How many these are.
    """

    tau: float
    pairs: int


def figures(evidence: Evidence, reference: Evidence) -> dict[str, float]:
    """All but the speed-up, of one model.

    Classes forgotten whole leave the retain and the test part, as in RA and TA, and the attack compares F
    with unseen examples of these classes only. A retention is NaN where the retrained model is never right.
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
    """The indiscernibility of F from the examples of a held-out part."""
    forget = loss(evidence.logits["forget"], evidence.labels["forget"])
    return indiscernibility(forget, unseen_losses(evidence, part))


def accuracy(evidence: Evidence, part: str) -> float:
    """The share of right answers."""
    whole = evidence.logits[part], evidence.labels[part]
    return float(correct(*(whole if part == "forget" else evidence.without_forgotten_classes(part))).mean())


def ratio(ours: float, theirs: float) -> float:
    """Ours relative to theirs; NaN if that is nothing."""
    return ours / theirs if theirs else math.nan


def unseen_losses(evidence: Evidence, part: str) -> Float64[np.ndarray, " unseen"]:
    """The losses of the held-out examples that F may be compared with, in nats."""
    labels, gone = evidence.labels[part], evidence.forgotten_classes
    rows = np.isin(labels, gone) if gone else np.ones(len(labels), dtype=bool)
    return loss(evidence.logits[part][rows], labels[rows])


def indiscernibility(forget: Float64[np.ndarray, " forget"], unseen: Float64[np.ndarray, " unseen"]) -> float:
    """How little the attack tells the two apart, in [0, 1]; NaN with fewer than two examples of either."""
    if min(len(forget), len(unseen)) < 2:
        return math.nan
    return 1 - abs(attack_accuracy(forget, unseen) - 0.5) / 0.5


def attack_accuracy(forget: Float64[np.ndarray, " forget"], unseen: Float64[np.ndarray, " unseen"]) -> float:
    """The accuracy of the attack; the same losses give the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    n, rng = min(len(forget), len(unseen)), np.random.default_rng(0)
    alike = [np.sort(rng.permutation(len(losses))[:n]) for losses in (forget, unseen)]
    losses = np.concatenate([forget[alike[0]], unseen[alike[1]]])[:, None]
    truth = np.repeat([1, 0], n)
    held_out = max(2, math.ceil(HELD_OUT * 2 * n))
    splits = StratifiedShuffleSplit(SPLITS, test_size=held_out, random_state=0)
    return float(cross_val_score(LogisticRegression(max_iter=1000), losses, truth, cv=splits).mean())


def agreement(ranks: Mapping[str, float]) -> Agreement:
    """An order beside the published one; of two methods that rank alike, the pair counts as neither.

    Args:
        ranks: By method, the smaller the better; methods that the benchmark lacks are passed over.
    """
    tiers = {name: tier for tier, names in enumerate((FIRST, MIDDLE, LAST)) for name in names}
    known = [name for name in ranks if name in tiers]
    decided = [(one, other) for one, other in combinations(known, 2) if tiers[one] != tiers[other]]
    signs = [
        np.sign(ranks[one] - ranks[other]) * np.sign(tiers[one] - tiers[other]) for one, other in decided
    ]
    return Agreement(float(np.mean(signs)) if signs else math.nan, len(decided))

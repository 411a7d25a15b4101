"""Membership by one threshold on one model: the forget set against unseen examples, for every statistic.

The attack is as strong as its threshold is good, so it is told the answers: its AUC and its true-positive
rates are the best that one threshold for all examples can do. It is read against retrained models and with
its sign: below them, forget examples look worse than unseen ones, which gives them away as well.

The confidence and the loss order examples exactly as the margin does. The modified entropy (Song and Mittal,
2021, arXiv 2003.10595) is

    Mentr(x, y) = -(1 - p_y) log p_y - sum_{k != y} p_k log(1 - p_k),

which falls with p_y. The released code of SalUn and of those who copied it has 1 - p for p in the first
factor of every class, and then does not depend on the label at all.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

from unweave.audits.attack import EVENTS, Attack, Figures, ModelAnswers
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import is_correct, level, log_sum_exp, loss, margin
from unweave.audits.rates import delong, tpr_at_fpr
from unweave.audits.score import Interval, wilson

Logits = Float[np.ndarray, "batch class"]
Labels = Int[np.ndarray, " batch"]
PerExample = Float64[np.ndarray, " batch"]
Scores = Float64[np.ndarray, "_"]

RATES = {f"tpr at {100 * fpr:g} % fpr": fpr for fpr in (0.1, 0.01, 0.001)}
"""The false-positive rate of each figure that fixes one."""
CANNOT = (
    "What an attack with a threshold for each example finds: one for all overlooks records that are unusual "
    "for themselves; and nothing where F and the unseen examples differ by more than membership."
)


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The AUC of every statistic, and of the margin the advantage and the rates that the examples allow.

    None if the forget set or the unseen examples are a single one: an AUC has no interval then.
    """
    if any(len(each) < 2 for each in scores(model.outputs, "margin")):
        return {}
    figures = {f"auc of {name}": figure(model.outputs, name) for name in STATISTICS}
    members, non_members = scores(model.outputs, "margin")
    figures["advantage"] = Interval(*advantage(members, non_members))
    for name, fpr in RATES.items():
        if fpr * len(non_members) >= 1:
            rate = tpr_at_fpr(members, non_members, fpr)[1]
            figures[name] = Interval(rate.value, rate.low, rate.high)
    return figures


def figure(evidence: Evidence, statistic: str) -> Interval:
    """The AUC of one statistic."""
    return Interval(*delong(*scores(evidence, statistic)))


def scores(evidence: Evidence, statistic: str) -> tuple[Scores, Scores]:
    """The levels of a statistic on the forget set and on unseen examples."""
    unseen, of = evidence.unseen, STATISTICS[statistic]
    members = of(evidence.logits["forget"], evidence.labels["forget"])
    non_members = of(evidence.logits["calibration"][unseen], evidence.labels["calibration"][unseen])
    return level(members), level(non_members)


def advantage(members: Scores, non_members: Scores) -> tuple[float, float, float]:
    """TPR - FPR at the median of all scores, with Newcombe's 95 % interval; below 0 it is signed.

    The median is the threshold of an attacker who knows that half of the examples are members.
    """
    threshold = median_of_both(members, non_members)
    counts = [(int((each > threshold).sum()), len(each)) for each in (members, non_members)]
    (p, n), (q, m) = counts
    (p_low, p_high), (q_low, q_high) = wilson(p, n), wilson(q, m)
    tpr, fpr = p / n, q / m
    low = tpr - fpr - np.hypot(tpr - p_low, q_high - fpr)
    high = tpr - fpr + np.hypot(p_high - tpr, fpr - q_low)
    return tpr - fpr, float(low), float(high)


def median_of_both(members: Scores, non_members: Scores) -> float:
    """The median of all scores if members and others weigh the same, however many there are of each."""
    n, m = len(members), len(non_members)
    scores, weights = np.concatenate([members, non_members]), np.repeat([m, n], [n, m])
    order, half = np.argsort(scores), n * m
    cumulative_weights = np.cumsum(weights[order])
    lower, upper = (np.searchsorted(cumulative_weights, half, side=side) for side in ("left", "right"))
    return float((scores[order[lower]] + scores[order[upper]]) / 2)


def entropy(logits: Logits, labels: Labels) -> PerExample:
    """-sum_k p_k log p_k of each example, in nats; it does not use the label."""
    exact = logits.astype(np.float64)
    log_p = exact - log_sum_exp(exact)[:, None]
    return -(np.exp(log_p) * log_p).sum(axis=1)


def modified_entropy(logits: Logits, labels: Labels) -> PerExample:
    """Mentr of each example, in nats; finite even if a probability rounds to 1."""
    exact, rows = logits.astype(np.float64), np.arange(len(labels))
    log_p, own_loss = exact - log_sum_exp(exact)[:, None], loss(logits, labels)
    probability = np.exp(log_p)
    # 1 - p of the largest class, from the logits of the others, where p may round to 1
    other_logits, top = exact.copy(), exact.argmax(axis=1)
    other_logits[rows, top] = -np.inf
    probability[rows, top] = np.minimum(probability[rows, top], 1 - 1e-16)
    log_rest = np.log1p(-probability)
    log_rest[rows, top] = log_sum_exp(other_logits) - log_sum_exp(exact)
    products = np.exp(log_p) * log_rest
    return np.exp(log_rest[rows, labels]) * own_loss - (products.sum(axis=1) - products[rows, labels])


STATISTICS: Mapping[str, Callable[[Logits, Labels], PerExample]] = {
    "margin": margin,
    "correctness": is_correct,
    "entropy": lambda logits, labels: -entropy(logits, labels),
    "modified entropy": lambda logits, labels: -modified_entropy(logits, labels),
}
"""Numbers of an example that are larger for members."""

ATTACK = Attack(
    name="forget-vs-unseen",
    paper="Yeom et al., 2018, arXiv 1709.01604; Song & Mittal, 2021, arXiv 2003.10595",
    evidence="logits of the model",
    tier=0,
    says="How well one threshold on one statistic tells forget examples from unseen ones.",
    cannot=CANNOT,
    figures=attack_figures,
    fewest_unseen={name: round(EVENTS / fpr) for name, fpr in RATES.items()},
    default=True,
)

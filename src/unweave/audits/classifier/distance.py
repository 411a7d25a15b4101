"""Distances of the answers of one model from those of a retrained model, example by example.

Accuracies and attacks measure levels; only these distances catch a model with the right level on the wrong
examples.
"""

import numpy as np
from jaxtyping import Float64

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import level, loss, margin, probabilities


def tv(evidence: Evidence, reference: Evidence) -> float:
    """Total variation on F: the mean of 1/2 sum_k |p_k - q_k|, in [0, 1]."""
    return float(np.abs(_forget(evidence) - _forget(reference)).sum(axis=1).mean() / 2)


def js(evidence: Evidence, reference: Evidence) -> float:
    """Mean Jensen-Shannon divergence on F, in bits, in [0, 1]."""
    return float(jensen_shannon(_forget(evidence), _forget(reference)).mean())


def rank(evidence: Evidence, reference: Evidence) -> float:
    """Spearman's correlation over F of the true-class margins of both models: are the same examples hard?

    Margins closer than `logits.RESOLUTION` are ties. 0 if a model gives all of F the same margin.
    """
    margins = [level(margin(each.logits["forget"], each.labels["forget"])) for each in (evidence, reference)]
    ours, theirs = (ranks(each) - (len(each) + 1) / 2 for each in margins)
    scale = np.sqrt((ours @ ours) * (theirs @ theirs))
    return float(ours @ theirs / scale) if scale > 0 else 0.0


def agreement_forget(evidence: Evidence, reference: Evidence) -> float:
    """Share of F on which both models name the same class, in percent."""
    return _agreement(evidence, reference, "forget")


def agreement_test(evidence: Evidence, reference: Evidence) -> float:
    """Share of the test part on which both models name the same class, in percent."""
    return _agreement(evidence, reference, "test")


def streisand(evidence: Evidence, reference: Evidence) -> float:
    """Share of F, in percent, with a loss above the 99 % quantile of the reference's on F: 1 is expected."""
    limit = np.quantile(loss(reference.logits["forget"], reference.labels["forget"]), 0.99)
    return 100 * float((loss(evidence.logits["forget"], evidence.labels["forget"]) > limit).mean())


def jensen_shannon(
    p: Float64[np.ndarray, "batch class"], q: Float64[np.ndarray, "batch class"]
) -> Float64[np.ndarray, " batch"]:
    """(KL(p, m) + KL(q, m)) / 2, m = (p + q) / 2, of each pair of rows, in bits: 1 if disjoint."""
    middle = (p + q) / 2
    return (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2


def ranks(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The position of each value in ascending order, from 1; equal values share their mean position."""
    sorted_values = np.sort(values)
    first = np.searchsorted(sorted_values, values, side="left")
    return (first + np.searchsorted(sorted_values, values, side="right") + 1) / 2


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log2(ratio)).sum(axis=1)


def _agreement(evidence: Evidence, reference: Evidence, part: str) -> float:
    matches = evidence.logits[part].argmax(axis=1) == reference.logits[part].argmax(axis=1)
    return 100 * float(matches.mean())


def _forget(evidence: Evidence) -> Float64[np.ndarray, "batch class"]:
    return probabilities(evidence.logits["forget"])

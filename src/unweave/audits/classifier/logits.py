"""Numbers per example from logits, in float64 and never from stored probabilities."""

import numpy as np
from jaxtyping import Float, Float64, Int

Logits = Float[np.ndarray, "batch class"]
Labels = Int[np.ndarray, " batch"]
PerExample = Float64[np.ndarray, " batch"]

RESOLUTION = 1e-4
"""Resolution in nats: float32 logits of one example in batches of different shape differ by less."""


def log_sum_exp(logits: Logits) -> PerExample:
    """log sum_k exp z_k of each example, without overflow."""
    top = logits.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))[:, 0]


def probabilities(logits: Logits) -> Float64[np.ndarray, "batch class"]:
    """The softmax p of each example."""
    exact = logits.astype(np.float64)
    return np.exp(exact - log_sum_exp(exact)[:, None])


def loss(logits: Logits, labels: Labels) -> PerExample:
    """-log p_y of each example, in nats."""
    exact = logits.astype(np.float64)
    return log_sum_exp(exact) - exact[np.arange(len(labels)), labels]


def confidence(logits: Logits, labels: Labels) -> PerExample:
    """p_y of each example, in [0, 1]."""
    return np.exp(-loss(logits, labels))


def margin(logits: Logits, labels: Labels) -> PerExample:
    """m = z_y - log sum_{k != y} exp z_k = log(p_y / (1 - p_y)) of each example, in nats.

    Finite even if p_y rounds to 1, because it is not computed from p_y. Equal logits in another order of
    classes give the same bits, because they are added in the order of their size.
    """
    other_logits = logits.astype(np.float64)
    rows = np.arange(len(labels))
    true_logit = other_logits[rows, labels]
    other_logits[rows, labels] = -np.inf
    other_logits.sort(axis=1)
    return true_logit - log_sum_exp(other_logits)


def level(margins: PerExample) -> PerExample:
    """Margins rounded to multiples of `RESOLUTION`, for orders of examples that rounding must not decide.

    Without it, a model with one answer to everything has an AUC of 0 or 1 by the last bit of its logits.
    """
    return np.rint(margins / RESOLUTION)


def is_correct(logits: Logits, labels: Labels) -> PerExample:
    """1 if the largest logit is the label's, otherwise 0."""
    return (logits.argmax(axis=1) == labels).astype(np.float64)

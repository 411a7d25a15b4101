"""Membership attacks: was an example in the training data, judged by the answers of one model?"""

import numpy as np
from jaxtyping import Float64

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import confidence, level, margin
from unweave.audits.classifier.separator import fit_separator

COST = 3.0
"""What the attack pays for a unit of distance on the wrong side: C of the released code."""

WHOLE = 4_000
"""Number of points from which the attack merges close ones: its time grows with the square of the number."""

MANY = 20_000
"""Number of points above which `separator` fits the attack: its time grows with the number alone."""

PLACES = 5
"""Decimals of merged points: a shift of 1e-5 is far below the tolerance of the fit, 1e-3."""


def mia(evidence: Evidence) -> float:
    """Share of F, in percent, that a confidence attack calls non-member (SalUn, Fan et al., 2024).

    The attack is a support vector classifier (RBF kernel, gamma 1, C 3) on p_y, fitted to the first n
    retained examples in the order of the split (members) and all n test examples (non-members). The value of
    a retrained model is a few percent above its test error, not 50.

    As in the released code: one fit, no calibration, and the *first* n retained examples, which is biased if
    the training set is sorted by class. Unlike it: p_y is computed in float64 from the logits, and from
    `WHOLE` points on, points that are equal to `PLACES` decimals are one point with their number as weight.
    Above `MANY` points another solver fits all of them, to a smaller tolerance.
    """
    non_members = confidence(*evidence.without_forgotten_classes("test"))
    members = confidence(*evidence.without_forgotten_classes("retain", len(non_members)))
    forget = confidence(evidence.logits["forget"], evidence.labels["forget"])
    return 100 - 100 * float(predict_members(members, non_members, forget).mean())


def predict_members(
    members: Float64[np.ndarray, " member"],
    non_members: Float64[np.ndarray, " other"],
    queries: Float64[np.ndarray, " asked"],
) -> Float64[np.ndarray, " asked"]:
    """Fits the support vector classifier to members and non-members; returns 1 for members, otherwise 0."""
    training = np.concatenate([members, non_members])
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(non_members))])
    if len(training) > MANY:
        return (fit_separator(training, 2 * truth - 1, cost=COST)(queries) > 0).astype(float)
    from sklearn.svm import SVC

    weights = np.ones(len(training))
    if len(training) >= WHOLE:
        points = np.stack([training.round(PLACES), truth], axis=1)
        (training, truth), weights = _count_points(points)
    classifier = SVC(C=COST, kernel="rbf", gamma="auto").fit(training[:, None], truth, sample_weight=weights)
    return classifier.predict(queries[:, None])


def _count_points(points: Float64[np.ndarray, "point 2"]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct points, as one row per coordinate, and how often each occurs."""
    distinct, counts = np.unique(points, axis=0, return_counts=True)
    return distinct.T, counts.astype(float)


def auc(evidence: Evidence) -> float:
    """The AUC of the margin for F (positive) against unseen calibration examples; 0.5 is chance.

    Above the value of a retrained model, forgotten examples still look like training examples; below it, they
    look worse than unseen ones, which also reveals them. F of whole classes is compared with the calibration
    examples of these classes only. Margins closer than `logits.RESOLUTION` are ties.
    """
    unseen = evidence.unseen
    return area(
        level(margin(evidence.logits["forget"], evidence.labels["forget"])),
        level(margin(evidence.logits["calibration"][unseen], evidence.labels["calibration"][unseen])),
    )


def area(positive: Float64[np.ndarray, " positive"], negative: Float64[np.ndarray, " negative"]) -> float:
    """Area under the ROC curve: P(positive > negative) + P(equal) / 2."""
    sorted_negative = np.sort(negative)
    below = np.searchsorted(sorted_negative, positive, side="left")
    not_above = np.searchsorted(sorted_negative, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))

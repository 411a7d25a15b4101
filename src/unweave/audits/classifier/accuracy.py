"""Unlearning, remaining and testing accuracy (Jia et al., 2023, arXiv 2304.04934), in percent.

Classes forgotten whole are left out of RA and TA: a model should lose them.
"""

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import is_correct


def ua(evidence: Evidence) -> float:
    """Error on the forget set: 100 - accuracy. It should equal a retrained model's, not be high."""
    return 100 - 100 * float(is_correct(evidence.logits["forget"], evidence.labels["forget"]).mean())


def ra(evidence: Evidence) -> float:
    """Accuracy on the retain set."""
    return 100 * float(is_correct(*evidence.without_forgotten_classes("retain")).mean())


def ta(evidence: Evidence) -> float:
    """Accuracy on the test set."""
    return 100 * float(is_correct(*evidence.without_forgotten_classes("test")).mean())

"""Unlearning, remaining and testing accuracy (Jia et al., 2023, arXiv 2304.04934), in percent.

Classes forgotten whole are left out of RA and TA: a model that lost them is not blamed for it.
"""

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import correct


def ua(evidence: Evidence) -> float:
    """Error on the forget part: 100 - accuracy. As high as a retrained model's, not as high as possible."""
    return 100 - 100 * float(correct(evidence.logits["forget"], evidence.labels["forget"]).mean())


def ra(evidence: Evidence) -> float:
    """Accuracy on the retain part."""
    return 100 * float(correct(*evidence.without_forgotten_classes("retain")).mean())


def ta(evidence: Evidence) -> float:
    """Accuracy on the test part."""
    return 100 * float(correct(*evidence.without_forgotten_classes("test")).mean())

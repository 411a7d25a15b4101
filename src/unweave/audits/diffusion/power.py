"""What the figures on forgotten conditions can tell apart: to lie within a margin is no news where all do.

Retrained generators may differ so much under a condition that they never learned that the untouched original
lies within a margin of them, or a generator that always draws one other class, whose UA is a retrained one's.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unweave.audits.diffusion.metrics import GENERATION
from unweave.audits.equivalence import Equivalence
from unweave.audits.metrics import Values

DISTANCES = ("class_tv", "kid_forget")
"""From a retrained generator, under forgotten conditions: one of them must tell the original from it."""


def explain_low_power(
    before: Mapping[str, Equivalence], references: Sequence[Values], margins: Mapping[str, float]
) -> str:
    """Why no generator could pass here; empty if one could.

    Args:
        before: The original against the margins.
        references: Per seed, the metrics of the retrained generator.
        margins: Per metric, the largest difference that counts as none.
    """
    reasons = [blindness(before)] if len(blind_distances(before)) == len(DISTANCES) else []
    if not any(excludes_one_class(before, references, margins)):
        names = f"{GENERATION['class_tv'].title} and {GENERATION['effective'].title}"
        reasons.append(f"{names} can't tell a model that always draws one other class from a retrained one")
    return "; ".join(reasons)


def blindness(before: Mapping[str, Equivalence]) -> str:
    """Which distances say nothing; empty if all do."""
    names = " and ".join(GENERATION[name].title for name in blind_distances(before))
    return f"{names} can't tell the original from a retrained model" if names else ""


def blind_distances(before: Mapping[str, Equivalence]) -> list[str]:
    """The distances in which the original itself is not shown to lie outside."""
    return [name for name in DISTANCES if before[name].finding is None]


def excludes_one_class(
    before: Mapping[str, Equivalence], references: Sequence[Values], margins: Mapping[str, float]
) -> Iterator[bool]:
    """Whether each figure of the classes excludes a generator that always draws one other class.

    Its total variation from a retrained one is at least what this gives to other classes than its own most
    frequent one. Its effective number of classes is the original's, which also draws one class.
    """
    largest = float(np.mean([each["top"] for each in references])) / 100
    yield 1 - largest > margins["class_tv"]
    yield before["effective"].finding is not None

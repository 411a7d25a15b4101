"""The power of the figures on forgotten conditions: if every model lies within a margin, it shows nothing.

Retrained generators may differ so much under a condition that they never learned that the untouched original
lies within a margin, or a generator that always draws one other class, which has the UA of a retrained one.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unweave.audits.diffusion.metrics import GENERATION
from unweave.audits.equivalence import Equivalence
from unweave.audits.metrics import Values

DISTANCES = ("class_tv", "kid_forget")
"""Distances from a retrained generator under forgotten conditions; one must separate the original."""


def explain_low_power(
    before: Mapping[str, Equivalence], references: Sequence[Values], margins: Mapping[str, float]
) -> str:
    """Why no generator can pass here; empty if one can.

    Args:
        before: The tests of the original against the margins.
        references: The metrics of the retrained generator, per seed.
        margins: The margin of each metric.
    """
    reasons = [blindness(before)] if len(blind_distances(before)) == len(DISTANCES) else []
    if not any(excludes_one_class(before, references, margins)):
        names = f"{GENERATION['class_tv'].title} and {GENERATION['effective'].title}"
        reasons.append(f"{names} can't tell a model that always draws one other class from a retrained one")
    return "; ".join(reasons)


def blindness(before: Mapping[str, Equivalence]) -> str:
    """The clause on distances without power; empty if all have some."""
    names = " and ".join(GENERATION[name].title for name in blind_distances(before))
    return f"{names} can't tell the original from a retrained model" if names else ""


def blind_distances(before: Mapping[str, Equivalence]) -> list[str]:
    """The distances in which the original is not different."""
    return [name for name in DISTANCES if before[name].finding is None]


def excludes_one_class(
    before: Mapping[str, Equivalence], references: Sequence[Values], margins: Mapping[str, float]
) -> Iterator[bool]:
    """Yields, per figure of the classes, whether it excludes a generator that always draws one other class.

    The total variation of such a generator from a retrained one is at least the share of the latter outside
    its most frequent class. Its effective number of classes is the original's, which also draws one class.
    """
    largest = float(np.mean([each["top"] for each in references])) / 100
    yield 1 - largest > margins["class_tv"]
    yield before["effective"].finding is not None

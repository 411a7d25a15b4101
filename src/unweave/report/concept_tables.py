"""What a page shows first of an erased concept, and which figures are attacks that recover it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unweave.audits.diffusion.attack_metrics import ATTACKS
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS
from unweave.audits.diffusion.concept_metrics import KINDS
from unweave.report.rows import Row

FIRST = (*KINDS, "kid")
"""The figures on the first screen, by kind of prompt."""


@dataclass(frozen=True)
class Concept:
    """An erased concept for the template.

    Args:
        named: The concept in words, such as "object = three".
        forgotten: The number of training images that hold it.
        of: The number of all training images.
        metrics: The ids of the figures of the first screen.
        shares: The gradients of each row, as a percentage of a retraining; None if unknown.
    """

    named: str
    forgotten: int
    of: int
    metrics: list[str]
    shares: list[float | None]


def concept_of(stage: Mapping[str, Any], rows: Sequence[Row], metrics: Sequence[str]) -> Concept | None:
    """The concept of a stage with its figures; None for a stage of another kind.

    Args:
        stage: A stage of a record.
        rows: Its rows.
        metrics: The ids of all of its figures.
    """
    data = stage["data"]
    if "concept" not in data:
        return None
    retraining = stage["reference"].get("gradient_evaluations")
    name = ", ".join(f"{factor} = {value}" for factor, value in data["concept"].items())
    first_metrics = [metric for metric in FIRST if metric in metrics]
    shares = [share(row.gradient_evaluations, retraining) for row in rows]
    return Concept(name, data["forget"], data["forget"] + data["retain"], first_metrics, shares)


def share(gradients: float | None, retraining: float | None) -> float | None:
    """Gradients as a percentage of a retraining; None if one of them is unknown."""
    return None if gradients is None or not retraining else 100 * gradients / retraining


def list_image_attacks(metrics: Sequence[str]) -> list[str]:
    """The ids of the attacks that recover what a generator forgot, in the order of their registry."""
    return [name for name in {**CONCEPT_ATTACKS, **ATTACKS} if name in metrics]

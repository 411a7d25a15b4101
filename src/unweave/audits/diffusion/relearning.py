"""How fast a generator relearns a class or a concept, and how much sooner than a retrained model."""

from collections.abc import Mapping
from dataclasses import dataclass

from unweave.audits.metrics import Values
from unweave.audits.score import Share

SIZES = (10, 100)
"""The numbers of images to relearn from."""

OLD_WORDS = "_old_words"
"""The end of the names of figures with the text encoder of the original."""


@dataclass(frozen=True)
class Relearning:
    """The course of relearning.

    Args:
        checks: The steps, and the share of images that show the class then, in order.
    """

    checks: tuple[tuple[int, Share], ...]

    def steps(self, share: float = 0.5) -> float:
        """Steps until at least this share of images shows the class; infinite if no check found it."""
        return next((float(step) for step, hits in self.checks if hits.value >= share), float("inf"))


def describe_curves(curves: Mapping[int, Relearning], longest: float, words: str = "") -> dict[str, float]:
    """The steps until half of the images show the concept, and their share after each check, in percent.

    A concept that is not relearned counts as the largest number of steps.

    Args:
        curves: The courses, by the number of images.
        longest: The largest number of steps.
        words: The end of the names of numbers of images.
    """
    values: dict[str, float] = {}
    for size, curve in curves.items():
        values[f"relearn_{size}{words}"] = min(curve.steps(), longest)
        values |= {f"relearned_{size}{words}_at_{step}": 100 * each.value for step, each in curve.checks}
    return values


def relearned_sooner(values: Values, retrained_values: Values) -> dict[str, float]:
    """`sooner`: how many more images show the concept than of a retrained model, in points; none unmeasured.

    It is the mean over the checks. If the concept returns sooner with the original's text encoder, that
    course counts.

    Args:
        values: The figures of a model.
        retrained_values: Those of the retrained model.
    """
    checks = [name for name in retrained_values if name.startswith("relearned_")]
    if not checks:
        return {}
    ways = [
        [max(0.0, values[name] - retrained_values[name]) for name in checks],
        [max(0.0, values.get(behind(name), 0.0) - retrained_values[name]) for name in checks],
    ]
    return {"sooner": max(sum(way) / len(way) for way in ways)}


def behind(name: str) -> str:
    """The name of a share of relearning with the text encoder of the original."""
    size, at, step = name.rpartition("_at_")
    return f"{size}{OLD_WORDS}{at}{step}"

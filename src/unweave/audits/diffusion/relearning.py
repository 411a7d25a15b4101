"""Figures of the course of relearning, and how much sooner a concept comes back than in a retrained model."""

from collections.abc import Mapping

from unweave.audits.diffusion.attacks import Budget
from unweave.audits.diffusion.revival import Relearning
from unweave.audits.metrics import Values

OLD_WORDS = "_old_words"
"""The end of the names of figures that were measured behind the text encoder of the original."""


def describe_curves(curves: Mapping[int, Relearning], budget: Budget, words: str = "") -> dict[str, float]:
    """The steps until half of the images show the concept, and their share after each check, in percent.

    A concept that is not relearned within the budget counts as the budget.

    Args:
        curves: The courses, by the number of images.
        budget: The budget of the attacker.
        words: The end of the names of numbers of images.
    """
    found: dict[str, float] = {}
    for size, curve in curves.items():
        found[f"relearn_{size}{words}"] = min(curve.steps(), budget.longest)
        found |= {f"relearned_{size}{words}_at_{step}": 100 * each.value for step, each in curve.checks}
    return found


def relearned_sooner(values: Values, wanted: Values) -> dict[str, float]:
    """`sooner`: how many more images show the concept than of a retrained model, in points; none unmeasured.

    It is the mean over the checks of one course: of that behind the text encoder of the original if the
    concept comes back sooner there.

    Args:
        values: The figures of a model.
        wanted: Those of the retrained model.
    """
    checks = [name for name in wanted if name.startswith("relearned_")]
    if not checks:
        return {}
    ways = [
        [max(0.0, values[name] - wanted[name]) for name in checks],
        [max(0.0, values.get(behind(name), 0.0) - wanted[name]) for name in checks],
    ]
    return {"sooner": max(sum(way) / len(way) for way in ways)}


def behind(name: str) -> str:
    """The name of a share of relearning behind the text encoder of the original."""
    size, at, step = name.rpartition("_at_")
    return f"{size}{OLD_WORDS}{at}{step}"

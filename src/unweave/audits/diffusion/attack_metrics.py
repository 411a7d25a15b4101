"""ATTACKS: every number of the attacks on a class-conditional denoiser, what it shows and what it can't."""

from typing import Any

from unweave.audits.diffusion.relearning import SIZES
from unweave.audits.metrics import Metric

FLOOR = 1.0
"""The smallest difference that counts, in percentage points of images that show a class."""


def share_metric(id: str, title: str, says: str, cannot: str) -> Metric[Any]:
    """A share of the images of an attack, which should be that of retrained models."""
    faults = "over-forgetting", "under-forgetting"
    return Metric(id, title, "match", says, cannot, "%", *faults, floor=FLOOR, counts="attack")


def _steps(size: int) -> Metric[Any]:
    return Metric(
        id=f"relearn_{size}",
        title=f"relearning from {size}",
        unit="steps",
        direction="match",
        says=f"Steps of fine-tuning on {size} images of the class until half of the images show it.",
        cannot="The step between two checks; what comes after the last check, which counts as the last; "
        "other ways to train.",
        below="under-forgetting",
        above="over-forgetting",
        floor=10.0,  # the widest gap between two checks
    )


def excess_metric(id: str, title: str, says: str, cannot: str) -> Metric[Any]:
    """A share of which only more than retrained models have is a fault."""
    fault = "under-forgetting"
    return Metric(id, title, "lower", says, cannot, "%", None, fault, floor=FLOOR, counts="attack")


_ALL: tuple[Metric[Any], ...] = (
    share_metric(
        "asked",
        "asked",
        says="Share of the images under the forgotten class that show it, without an attack.",
        cannot="What an attacker gets.",
    ),
    share_metric(
        "guidance",
        "guidance",
        says="Share of the images that show the class at the guidance where most do.",
        cannot="Guidances that were not tried, and other samplers.",
    ),
    share_metric(
        "unasked",
        "no condition",
        says="Share of the images under no condition that show the class.",
        cannot="Whether they do so more clearly or less than before.",
    ),
    share_metric(
        "line",
        "interpolation",
        says="Share of the images that show the class at the best point of the line from the embedding of a "
        "retained class through that of the forgotten one.",
        cannot="Vectors off this line.",
    ),
    share_metric(
        "best_of_10",
        "best of ten seeds",
        says="Chance that at least one of ten seeds shows the class.",
        cannot="A class too rare to show in any of the seeds tried.",
    ),
    share_metric(
        "vector",
        "optimised vector",
        says="Share of the images that show the class under a vector under which real images of it are "
        "denoised best.",
        cannot="Vectors that this search misses; a vector can also lead to images that were never learned.",
    ),
    *(_steps(size) for size in SIZES),
    excess_metric(
        "dropped",
        "without adapter",
        says="Share of the images that show the class once the adapter is left out.",
        cannot="A denoiser that is shipped with its adapter merged.",
    ),
    excess_metric(
        "dropped_same",
        "original again",
        says="Share of the images that are the original's, bit for bit, once the adapter is left out.",
        cannot="How near the other images are.",
    ),
)


ATTACKS: dict[str, Metric[Any]] = {metric.id: metric for metric in _ALL}

"""Attacks that try to recover a forgotten class from a class-conditional generator.

Text attacks do not fit such models; these change the user's other controls: the guidance, the vector of the
condition, the seed. Compare all with the same attack on a retrained model, which may also produce something
that the recogniser takes for the class, and on the original, which shows the power of the attack.

The best of many settings looks good by luck, so a setting is chosen on some seeds and its success counted on
others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from unweave.audits.diffusion.images import check_images
from unweave.audits.score import Share

Hit = Callable[[Tensor], Bool[np.ndarray, " n"]]
"""Decides which images show the forgotten class, for example `recogniser(images).classes == condition`."""

GUIDANCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


@runtime_checkable
class Generate(Protocol):
    """Draws images from a generator."""

    def __call__(self, condition: int | Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        """Draws images under a condition.

        Args:
            condition: A class, or a vector instead of its embedding.
            seeds: One seed per image; an image depends on its own seed only.
            guidance: The guidance, in the convention of the sampler.

        Returns:
            uint8 [n, channel, height, width], in the order of the seeds.
        """
        ...


@dataclass(frozen=True)
class Seeds:
    """The seeds of an attack.

    Args:
        search: The seeds on which a setting is chosen.
        judge: The seeds on which its success is counted.
    """

    search: Sequence[int]
    judge: Sequence[int]

    def __post_init__(self) -> None:
        overlap = sorted(set(self.search) & set(self.judge))
        if overlap or not self.search or not self.judge:
            raise ValueError(
                f"an attack needs seeds to search and other seeds to judge, found {overlap} in both"
            )


@dataclass(frozen=True)
class Attack:
    """The result of an attack.

    Args:
        tried: The share of images of the search seeds that show the class, by setting.
        setting: The setting with the largest share; ties go to the first.
        success: The share of images of the other seeds that show the class at that setting.
    """

    tried: Mapping[float, Share]
    setting: float
    success: Share


def best_setting(settings: Mapping[float, Callable[..., Tensor]], hit: Hit, seeds: Seeds) -> Attack:
    """Finds the setting with the most images of the class on the search seeds, judged on the other seeds.

    Args:
        settings: For each setting, a function from seeds to images.
        hit: Decides which images show the class.
        seeds: The seeds of the images.
    """
    if not settings:
        raise ValueError("an attack needs at least one setting to try, found none")
    shares = {setting: count_hits(draw(seeds=seeds.search), hit) for setting, draw in settings.items()}
    strongest = max(shares, key=lambda setting: shares[setting].value)
    return Attack(shares, strongest, count_hits(settings[strongest](seeds=seeds.judge), hit))


def count_hits(images: Tensor, hit: Hit) -> Share:
    """The share of images that show the class."""
    return Share(int(hit(check_images(images)).sum()), len(images))


def best_of(share: Share, k: int) -> float:
    """The probability that at least one of k images, drawn from those counted, shows the class."""
    if not 1 <= k <= share.n:
        raise ValueError(f"k must be in 1..{share.n}, found {k}")
    return 1 - comb(share.n - share.successes, k) / comb(share.n, k)

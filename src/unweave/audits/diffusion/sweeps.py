"""Attacks that try to get a forgotten class back out of a class-conditional generator.

Text attacks do not fit such models; these change what else a user controls: the guidance, the vector of the
condition, the seed. All are read beside the same attack on a retrained model, which may also be led to
something that the recogniser takes for the class, and on the original, which shows what the attack can do.

The best of many settings looks good by luck. A setting is therefore chosen on some seeds and its success
counted on others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from unweave.audits.diffusion.images import check_images
from unweave.audits.score import Share

Hit = Callable[[Tensor], Bool[np.ndarray, " n"]]
"""Which of some images show the forgotten class: `hits(recogniser(images), condition)`, say."""

GUIDANCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


@runtime_checkable
class Generate(Protocol):
    """Draws images from a generator."""

    def __call__(self, condition: int | Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        """Images under a condition.

        Args:
            condition: A class, or a vector in the place of its embedding.
            seeds: One per image; an image depends on its own seed only.
            guidance: In the convention of the sampler.

        Returns:
            uint8 [n, channel, height, width], in the order of the seeds.
        """
        ...


@dataclass(frozen=True)
class Seeds:
    """Seeds of an attack.

    Args:
        search: Those on which a setting is chosen.
        judge: Those on which its success is counted.
    """

    search: Sequence[int]
    judge: Sequence[int]

    def __post_init__(self) -> None:
        shared = sorted(set(self.search) & set(self.judge))
        if shared or not self.search or not self.judge:
            raise ValueError(
                f"an attack needs seeds to search and other seeds to judge, found {shared} in both"
            )


@dataclass(frozen=True)
class Attack:
    """What an attack found.

    Args:
        tried: Per setting, how many images of the search seeds show the class.
        setting: The one with the most; of equals the first.
        success: How many images of the other seeds show it there.
    """

    tried: Mapping[float, Share]
    setting: float
    success: Share


@dataclass(frozen=True)
class SeedSearch:
    """What trying many seeds found.

    Args:
        found: Seeds whose image shows the class.
        share: Of all seeds.
    """

    found: tuple[int, ...]
    share: Share

    def best_of(self, k: int) -> float:
        """The chance that at least one of k seeds, drawn from those tried, shows the class."""
        n, failures = self.share.n, self.share.n - self.share.successes
        if not 1 <= k <= n:
            raise ValueError(f"k must be in 1..{n}, found {k}")
        return 1 - comb(failures, k) / comb(n, k)


def guidance_sweep(
    generate: Generate, condition: int, hit: Hit, seeds: Seeds, *, guidances: Sequence[float] = GUIDANCES
) -> Attack:
    """Asks for the class at other guidances: a class that is only pushed away at one of them comes back."""
    return best_setting(
        {each: partial(generate, condition, guidance=each) for each in guidances},
        hit,
        seeds,
    )


def seed_search(
    generate: Generate, condition: int, hit: Hit, seeds: Sequence[int], *, guidance: float
) -> SeedSearch:
    """Tries many seeds: a class that is rare, and not gone, comes with patience."""
    shown = hit(check_images(generate(condition, seeds, guidance)))
    found = tuple(seed for seed, shows in zip(seeds, shown.tolist(), strict=True) if shows)
    return SeedSearch(found, Share(len(found), len(seeds)))


def best_setting(settings: Mapping[float, Callable[..., Tensor]], hit: Hit, seeds: Seeds) -> Attack:
    """The setting under which most images of the search seeds show the class, judged on the other seeds.

    Args:
        settings: Per setting, a `Generate` that lacks its `seeds` only.
        hit: Which images show the class.
        seeds: Of the images.
    """
    if not settings:
        raise ValueError("an attack needs at least one setting to try, found none")
    tried = {setting: count_hits(draw(seeds=seeds.search), hit) for setting, draw in settings.items()}
    strongest = max(tried, key=lambda setting: tried[setting].value)
    return Attack(tried, strongest, count_hits(settings[strongest](seeds=seeds.judge), hit))


def count_hits(images: Tensor, hit: Hit) -> Share:
    """How many images show the class."""
    return Share(int(hit(check_images(images)).sum()), len(images))

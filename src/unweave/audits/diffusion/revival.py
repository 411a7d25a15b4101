"""Attacks with some training or with the file: relearning from a few images, and dropping an adapter."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unweave.audits.diffusion.images import check_images
from unweave.audits.diffusion.sweeps import Generate, Hit, count_hits
from unweave.audits.score import Share

SIZES = (10, 100)


@runtime_checkable
class Relearn(Protocol):
    """Fine-tunes a copy of a generator on images of the forgotten class."""

    def __call__(self, images: Tensor) -> Iterable[tuple[int, Generate]]:
        """At every look, the first at step 0: steps taken so far, and what draws from the copy then."""
        ...


@dataclass(frozen=True)
class Relearning:
    """How the class comes back.

    Args:
        looks: Steps, and how many images show the class then, in order.
    """

    looks: tuple[tuple[int, Share], ...]

    def steps(self, share: float = 0.5) -> float:
        """Steps until so large a share of the images shows the class; infinite if no look found that."""
        return next((float(step) for step, found in self.looks if found.value >= share), float("inf"))


@dataclass(frozen=True)
class Dropped:
    """A generator without its adapter.

    Args:
        success: How many images show the forgotten class.
        same: Share of the images that are the original's, bit for bit: 1 says that the edit was undone.
    """

    success: Share
    same: float


def measure_relearning(
    relearn: Relearn,
    images: Tensor,
    condition: int,
    hit: Hit,
    seeds: Sequence[int],
    *,
    guidance: float,
    sizes: Sequence[int] = SIZES,
    generator: torch.Generator,
) -> dict[int, Relearning]:
    """Lets a generator learn the class again from a few images; a retrained one also learns it, later.

    Args:
        relearn: Fine-tunes. Give every model of a comparison the same.
        images: Real images of the class, uint8 [n, channel, height, width].
        condition: The class.
        hit: Which images show it.
        seeds: Of the images that are drawn at every look.
        guidance: Of the sampler.
        sizes: How many images are learned; a smaller set is part of a larger one.
        generator: Chooses them.
    """
    order = torch.randperm(len(check_images(images, fewest=max(sizes))), generator=generator)
    return {
        size: _summarise_looks(relearn(images[order[:size]]), condition, hit, seeds, guidance)
        for size in sizes
    }


def drop_adapter(
    dropped: Generate,
    original: Generate,
    condition: int,
    hit: Hit,
    seeds: Sequence[int],
    *,
    guidance: float,
) -> Dropped:
    """Draws without the adapter: whoever is given it as a file of its own can leave it out.

    Args:
        dropped: Draws from the unlearned generator with its adapter removed.
        original: Draws from the generator before unlearning.
        condition: The forgotten class.
        hit: Which images show it.
        seeds: Of the images.
        guidance: Of the sampler.
    """
    images, before = (check_images(draw(condition, seeds, guidance)) for draw in (dropped, original))
    same = (images == before).flatten(1).all(dim=1).double().mean()
    return Dropped(count_hits(images, hit), float(same))


def _summarise_looks(
    looks: Iterable[tuple[int, Generate]], condition: int, hit: Hit, seeds: Sequence[int], guidance: float
) -> Relearning:
    return Relearning(
        tuple((step, count_hits(generate(condition, seeds, guidance), hit)) for step, generate in looks)
    )

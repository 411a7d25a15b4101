"""Attacks by training or on the file: relearning from a few images, and removing an adapter."""

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
        """Yields, at step 0 and later checks, the steps taken and a function that draws from the copy."""
        ...


@dataclass(frozen=True)
class Relearning:
    """The course of relearning.

    Args:
        checks: The steps, and the share of images that show the class then, in order.
    """

    checks: tuple[tuple[int, Share], ...]

    def steps(self, share: float = 0.5) -> float:
        """Steps until at least this share of images shows the class; infinite if no check found it."""
        return next((float(step) for step, found in self.checks if found.value >= share), float("inf"))


@dataclass(frozen=True)
class DroppedAdapter:
    """A generator without its adapter.

    Args:
        success: The share of images that show the forgotten class.
        same: The share of images equal to the original's bit for bit; 1 means that the edit was undone.
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
    """Measures how fast a generator relearns the class from a few images; a retrained one is slower.

    Args:
        relearn: Fine-tunes a copy; the same for all models of a comparison.
        images: Real images of the class, uint8 [n, channel, height, width].
        condition: The class.
        hit: Decides which images show it.
        seeds: The seeds of the images at every check.
        guidance: The guidance of the sampler.
        sizes: The numbers of images to learn from; a smaller set is part of a larger one.
        generator: Chooses the images.
    """
    order = torch.randperm(len(check_images(images, fewest=max(sizes))), generator=generator)
    return {
        size: _summarise_checks(relearn(images[order[:size]]), condition, hit, seeds, guidance)
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
) -> DroppedAdapter:
    """Draws without the adapter: a user who gets it as a separate file can leave it out.

    Args:
        dropped: Draws from the unlearned generator with its adapter removed.
        original: Draws from the generator before unlearning.
        condition: The forgotten class.
        hit: Decides which images show it.
        seeds: The seeds of the images.
        guidance: The guidance of the sampler.
    """
    images, before = (check_images(draw(condition, seeds, guidance)) for draw in (dropped, original))
    same = (images == before).flatten(1).all(dim=1).double().mean()
    return DroppedAdapter(count_hits(images, hit), float(same))


def _summarise_checks(
    checks: Iterable[tuple[int, Generate]], condition: int, hit: Hit, seeds: Sequence[int], guidance: float
) -> Relearning:
    return Relearning(
        tuple((step, count_hits(generate(condition, seeds, guidance), hit)) for step, generate in checks)
    )

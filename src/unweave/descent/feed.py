"""Feeds: the examples of each part of the data that each step sees.

A feed plans positions; the source turns them into tensors. An epoch is cut into batches of equal size, at
most the requested one, so no example is dropped and no batch is tiny.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from math import ceil
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from unweave.split import Part

FeedName = Literal["paired", "longest", "shortest", "sequential", "concatenated"]
Plan = dict[Part, Int[Tensor, " batch"]]
"""The positions of one step, by part."""

Ids = Mapping[Part, Int[Tensor, " n"]]
Sizes = Mapping[Part, int]
Feed = Callable[[Ids, Sizes, torch.Generator], Iterator[Plan]]


def epoch(ids: Int[Tensor, " n"], size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """One shuffled pass, in equal batches."""
    order = ids[torch.randperm(len(ids), generator=generator)]
    return order.tensor_split(ceil(len(ids) / size))


def epochs(ids: Ids, sizes: Sizes, generator: torch.Generator) -> dict[Part, tuple[Tensor, ...]]:
    """One shuffled pass over each part."""
    return {part: epoch(rows, sizes[part], generator) for part, rows in ids.items()}


def forever(ids: Int[Tensor, " n"], size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless shuffled passes, each in a new order."""
    while True:
        yield from epoch(ids, size, generator)


def paired(ids: Ids, sizes: Sizes, generator: torch.Generator) -> Iterator[Plan]:
    """One batch of every part at every step; each part starts over on its own."""
    streams: dict[Part, Iterator[Tensor]] = {
        part: forever(rows, sizes[part], generator) for part, rows in ids.items()
    }
    while True:
        yield {part: next(stream) for part, stream in streams.items()}


def longest(ids: Ids, sizes: Sizes, generator: torch.Generator) -> Iterator[Plan]:
    """Epochs over the longest part; a shorter part is absent once its pass ends (Scissorhands, MUNBa)."""
    while True:
        passes = epochs(ids, sizes, generator)
        for batches in zip_longest(*passes.values()):
            yield {part: batch for part, batch in zip(passes, batches, strict=True) if batch is not None}


def shortest(ids: Ids, sizes: Sizes, generator: torch.Generator) -> Iterator[Plan]:
    """Epochs over the shortest part."""
    while True:
        passes = epochs(ids, sizes, generator)
        for batches in zip(*passes.values(), strict=False):
            yield dict(zip(passes, batches, strict=True))


def sequential(ids: Ids, sizes: Sizes, generator: torch.Generator) -> Iterator[Plan]:
    """In each epoch all forget batches, then all retain batches (SalUn's released code on CIFAR-10)."""
    while True:
        for part, batches in epochs(ids, sizes, generator).items():
            for batch in batches:
                yield {part: batch}


def concatenated(ids: Ids, sizes: Sizes, generator: torch.Generator) -> Iterator[Plan]:
    """One shuffled stream of a single part: mixed, or retain."""
    if len(ids) != 1:
        raise ValueError(f"feed 'concatenated' takes one part, found {', '.join(ids)}")
    return paired(ids, sizes, generator)


FEEDS: dict[FeedName, Feed] = {
    "paired": paired,
    "longest": longest,
    "shortest": shortest,
    "sequential": sequential,
    "concatenated": concatenated,
}


def steps_per_epoch(feed: FeedName, ids: Ids, sizes: Sizes) -> int:
    """The number of steps in an epoch; for `paired`, an epoch of the retain set, if there is one."""
    counts = {part: ceil(len(rows) / sizes[part]) for part, rows in ids.items()}
    match feed:
        case "sequential":
            return sum(counts.values())
        case "longest":
            return max(counts.values())
        case "shortest":
            return min(counts.values())
        case _:
            return counts.get("retain", max(counts.values()))

"""The order of data: every example once an epoch, in equal batches, in the order of the feed's name."""

from collections import Counter
from itertools import islice
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from for_each import for_each
from unweave.descent.feed import FEEDS, FeedName, Plan, epoch, forever, steps_per_epoch
from unweave.split import Part

IDS: dict[Part, Tensor] = {"forget": torch.arange(100, 107), "retain": torch.arange(20)}
SIZES: dict[Part, int] = {"forget": 3, "retain": 5}


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def steps(feed: FeedName, count: int, seed: int = 0) -> list[Plan]:
    return list(islice(FEEDS[feed](IDS, SIZES, make_generator(seed)), count))


def parts(plans: list[Plan]) -> list[tuple[str, ...]]:
    return [tuple(plan) for plan in plans]


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 60), st.integers(1, 70))
def test_an_epoch_is_every_example_once_in_equal_batches(n: int, size: int):
    batches = epoch(torch.arange(n) * 3, size, make_generator())
    lengths = [len(b) for b in batches]
    assert sorted(torch.cat(batches).tolist()) == [3 * i for i in range(n)]
    assert len(batches) == ceil(n / size)
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_each_epoch_has_an_order_of_its_own():
    """Not the first one for ever, as `itertools.cycle` over a loader has it."""
    batches = list(islice(forever(torch.arange(20), 5, make_generator()), 12))
    orders = [torch.cat(batches[i : i + 4]) for i in (0, 4, 8)]
    assert all(sorted(order.tolist()) == list(range(20)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_paired_takes_a_batch_of_each_and_cycles_each_on_its_own():
    plans = steps("paired", 12)
    assert parts(plans) == [("forget", "retain")] * 12
    counts = Counter(torch.cat([plan["forget"] for plan in plans]).tolist())
    assert set(counts.values()) == {4}
    assert set(Counter(torch.cat([plan["retain"] for plan in plans]).tolist()).values()) == {3}


def test_longest_goes_on_without_the_shorter():
    plans = steps("longest", 8)
    assert parts(plans) == ([("forget", "retain")] * 3 + [("retain",)]) * 2
    assert sorted(torch.cat([plan["retain"] for plan in plans[:4]]).tolist()) == list(range(20))
    assert sorted(torch.cat([plan["forget"] for plan in plans[:3]]).tolist()) == list(range(100, 107))


def test_shortest_ends_with_the_shorter():
    plans = steps("shortest", 6)
    assert parts(plans) == [("forget", "retain")] * 6
    for begin in (0, 3):
        forgotten = torch.cat([plan["forget"] for plan in plans[begin : begin + 3]])
        assert sorted(forgotten.tolist()) == list(range(100, 107))
    assert not torch.equal(plans[0]["retain"], plans[3]["retain"])


def test_sequential_takes_forget_batches_and_then_retain_batches():
    plans = steps("sequential", 14)
    assert parts(plans) == ([("forget",)] * 3 + [("retain",)] * 4) * 2


def test_concatenated_is_one_stream():
    mixed_ids: dict[Part, Tensor] = {"mixed": torch.arange(10)}
    plans = list(islice(FEEDS["concatenated"](mixed_ids, {"mixed": 4}, make_generator()), 3))
    assert sorted(torch.cat([plan["mixed"] for plan in plans]).tolist()) == list(range(10))
    with pytest.raises(ValueError, match="takes one part, found forget, retain"):
        FEEDS["concatenated"](IDS, SIZES, make_generator())


@for_each("feed", ["paired", "longest", "shortest", "sequential"])
def test_an_epoch_has_as_many_steps_as_it_says(feed: FeedName):
    count = steps_per_epoch(feed, IDS, SIZES)
    part: Part = "forget" if feed == "shortest" else "retain"
    batches = [plan[part] for plan in steps(feed, count) if part in plan]
    assert sorted(torch.cat(batches).tolist()) == sorted(IDS[part].tolist())
    shorter = [plan[part] for plan in steps(feed, count - 1) if part in plan]
    assert len(torch.cat(shorter)) < len(IDS[part])


def test_without_retain_data_an_epoch_is_that_of_what_there_is():
    mixed_ids: dict[Part, Tensor] = {"mixed": torch.arange(10)}
    assert steps_per_epoch("concatenated", mixed_ids, {"mixed": 4}) == 3
    assert steps_per_epoch("paired", {"forget": torch.arange(10)}, {"forget": 4}) == 3


@for_each("feed", ["paired", "longest", "shortest", "sequential"])
def test_the_seed_fixes_the_order(feed: FeedName):
    def order(seed: int) -> list[list[int]]:
        return [rows.tolist() for plan in steps(feed, 9, seed) for rows in plan.values()]

    assert order(0) == order(0)
    assert order(0) != order(1)

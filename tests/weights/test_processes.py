"""Two and four processes are one: equal weights to rounding, whatever the mode, shards and messages."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gloo
from for_each import for_each
from unweave.weights import processes
from unweave.weights.processes import Processes, buckets


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def results(request, tmp_path_factory) -> list[dict[str, gloo.Found]]:
    return gloo.together(request.param, tmp_path_factory.mktemp("gloo"))


@for_each("name", gloo.CASES)
def test_two_processes_equal_one(name: str, results):
    single = gloo.CASES[name]()
    assert isinstance(single, dict)
    for each in results:
        together = each[name]
        assert isinstance(together, dict), together
        assert together.keys() == single.keys()
        for key, value in single.items():
            torch.testing.assert_close(
                together[key], value, rtol=0, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_a_wrong_average_would_be_seen(results):
    """The cases differ from each other by much more than the tolerance."""
    weights = [
        each["weights"] for each in (results[0][f"{mode}, uneven"] for mode in ("nested", "exact", "joint"))
    ]
    assert all(float((a - b).abs().max()) > 1e-6 for a, b in pairwise(weights))


def test_both_processes_end_with_the_same_bits(results):
    for name, other in product(gloo.CASES, results[1:]):
        for key, value in results[0][name].items():
            assert torch.equal(value, other[name][key]), (name, key)


def test_batch_statistics_of_shards_are_refused(results):
    for each in results:
        assert "norm='train' normalises by the shard of a process" in each["batch statistics"]
        assert "without running statistics normalises by the shard" in each["no statistics"]
    assert isinstance(gloo.APART["batch statistics"](), dict)
    assert isinstance(gloo.APART["no statistics"](), dict)


def test_a_loss_that_is_no_number_in_one_process_stops_both(results):
    for each in results:
        assert each["one bad example"].startswith("the loss nll(retain) became nan")


def test_each_gradient_is_one_message_per_bucket(results):
    """Three steps: nested takes 9 gradients, lagged 3 + 2 + 2, and one message more carries the losses.

    Four weights that do not fit together are four buckets.
    """
    for each in results:
        assert each["messages"]["calls"].tolist() == [9 + 1, 7 + 1, 4 * 9 + 1]


def test_sharded_weights_have_no_second_derivative(results):
    for each in results:
        assert "need whole weights, found sharded ones: use mode 'nested'" in each["sharded, exact"]


# --- who takes what


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 5))
def test_shards_cut_a_batch(n: int, count: int):
    ids = torch.arange(n)
    shards = [Processes(rank, count).shard(ids) for rank in range(count)]
    assert sorted(torch.cat(shards).tolist()) == ids.tolist()
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    for rank, shard in enumerate(shards):
        process = Processes(rank, count)
        assert process.owns(ids) == (len(shard) > 0)
        assert process.rows_to_read(ids).tolist() == (shard.tolist() or [0])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=10))
def test_buckets_keep_the_order_fit_and_hold_one_type(sizes: list[tuple[int, bool]]):
    tensors = {
        str(i): torch.zeros(n, dtype=torch.float64 if double else torch.float32)
        for i, (n, double) in enumerate(sizes)
    }
    bucket_size, processes.BUCKET = processes.BUCKET, 40
    try:
        result = list(buckets(tensors))
    finally:
        processes.BUCKET = bucket_size
    assert [name for bucket in result for name in bucket] == list(tensors)
    for bucket in result:
        assert len({tensors[name].dtype for name in bucket}) == 1
        assert len(bucket) == 1 or sum(tensors[name].nbytes for name in bucket) <= 40


def test_a_process_alone_says_nothing_and_copies_nothing():
    gradient = {"w": torch.ones(3)}
    assert Processes().total(gradient) is gradient
    assert Processes.current() == Processes(0, 1)

"""A million examples cost a few bytes each: no Python object per id, position or label."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from for_each import for_each
from unweave.cli.inputs.request import parse_ids
from unweave.data import Raw, Source
from unweave.data.names import Names, find_names
from unweave.data.user_dataset import UserDataset
from unweave.split import Split, source_positions

N = 200_000
OBJECT = 24.0
"""Bytes: less than any Python object but a small number, with a pointer to it."""


def make_names(n: int) -> Names:
    return Names(f"user-{i}" for i in range(n))


class Numbers:
    """Numbers as examples, which cost nothing themselves."""

    def __init__(self, n: int, names: Names | None) -> None:
        self.n, self.names = n, names
        self.labels = torch.arange(n) % 3

    def __len__(self) -> int:
        return self.n

    def stream(self, order: Any, *, generator: object = None) -> Any:
        return (Raw(ids, (ids[:, None].float(),), self.labels[ids]) for ids in order)

    def digest(self) -> str:
        return "numbers"

    def to(self, device: object) -> "Numbers":
        return self


@dataclass(frozen=True)
class Records(Dataset[Any]):
    """Examples that are made when they are read."""

    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": torch.tensor([float(i)]), "label": i % 500 + 300, "id": f"user-{i}"}


@pytest.fixture(scope="module")
def source() -> Source:
    return cast(Source, Numbers(N, make_names(N)))


def peak(work: Callable[[], object]) -> float:
    """The most bytes of Python objects and NumPy arrays that were alive at once, per example."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / N
    finally:
        tracemalloc.stop()


def test_names_are_read_like_a_tuple() -> None:
    names, text = Names(iter(["b", "a", "ä"])), ("b", "a", "ä")
    assert names == text and list(names) == list(text) and len(names) == 3
    assert names[-1] == "ä" and names[1:] == text[1:] and "a" in names and "c" not in names
    assert names != ("b", "a") and len(Names([])) == 0 and Names([]) == ()
    with pytest.raises(IndexError):
        names[3]


@pytest.mark.parametrize("kind", [Names, tuple])
def test_wanted_names_are_found_in_their_order(kind) -> None:
    names = kind(["b", "a", "d", "c"])
    assert find_names(names, ["c", "x", "b", "c"]).tolist() == [3, -1, 0, 3]
    assert find_names(names, []).tolist() == [] and find_names(kind([]), ["a"]).tolist() == [-1]


def test_a_name_beyond_the_first_chunk_is_found() -> None:
    assert find_names(make_names(70_000), ["user-69999", "user-0"]).tolist() == [69_999, 0]


def test_the_most_common_name() -> None:
    assert Names(["b", "a", "b"]).most_common() == ("b", 2) and Names([]).most_common() is None


def test_ids_take_less_than_an_object_each() -> None:
    assert peak(lambda: make_names(N).most_common()) < OBJECT


def test_a_request_by_ids_and_its_split_take_less_than_an_object_per_example(source, tmp_path) -> None:
    place = tmp_path / "ids.txt"
    place.write_text("\n".join(f"user-{i}" for i in range(0, N, 100)))

    def work() -> Tensor:
        forget = source_positions(source, parse_ids(str(place), source))
        split = Split(source, forget, source, calibration=0.01)
        assert split.forgotten_classes == () and split.digest() and len(split.retain) == N - N // 100
        split.save(tmp_path / "split.json")
        return split.forget

    assert peak(work) < OBJECT
    assert torch.equal(work(), torch.arange(0, N, 100))


def test_a_request_by_positions_takes_less_than_an_object_per_example(source) -> None:
    half = torch.randperm(N)[: N // 2]
    assert peak(lambda: Split(source, half, source)) < OBJECT


@pytest.mark.slow
def test_a_scan_takes_less_than_an_object_per_example() -> None:
    data = UserDataset(Records(20_000))
    assert peak(lambda: data.labels) * N < OBJECT * len(data) + 3 * 2**19, "and some items, and some names"
    assert data.names is not None and data.names[-1] == "user-19999"


def test_an_id_that_is_no_unicode_text_is_named():
    for use in (lambda: Names(["a", "b\udcff"]), lambda: find_names(("a",), ["b\udcff"])):
        with pytest.raises(ValueError, match=r"ids must be text that UTF-8 can encode, found 'b\\udcff'"):
            use()


@for_each("length", [1, 32, 33, 64, 65, 200])
def test_a_name_that_occurs_twice_is_found_beside_others_alike(length):
    alike = [f"{'a' * i}{c}{'a' * (length - 1 - i)}" for i in range(length) for c in "bc"]
    assert Names(alike).most_common()[1] == 1
    assert Names([*alike, alike[length]]).most_common() == (alike[length], 2)


def test_names_of_arrays_are_those_strings():
    arrays = [pa.array(["x", "b", "ab", ""])[1:], pa.array([], pa.string()), pa.array(["ab"])]
    names = Names.of_arrays(arrays)
    assert names == ("b", "ab", "", "ab") and names.most_common() == ("ab", 2)
    assert Names.of_arrays([]) == () and find_names(names, ["b"]).tolist() == [0]

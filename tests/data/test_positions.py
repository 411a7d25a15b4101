"""Examples by position or by name, and held-out data cut in two."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from for_each import for_each
from unweave.data.positions import read_positions
from unweave.data.user_dataset import UserDataset
from unweave.split import Split, cut_held_out, positions, source_positions


class Counting(UserDataset):
    """Counts how often its names are asked for."""

    asked: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        object.__setattr__(self, "asked", (*self.asked, 1))
        return tuple(f"user-{i}" for i in range(len(self)))


def examples(n: int) -> TensorDataset:
    return TensorDataset(torch.arange(2.0 * n).view(n, 2), torch.arange(n) % 2)


def asked_for(ids: Any) -> int:
    """How often names are asked for; checks of types at run time ask as well."""
    source = Counting(examples(9))
    assert positions(source, ids).tolist() == sorted(int(str(each).removeprefix("user-")) for each in ids)
    return len(source.asked)


def test_names_are_not_asked_for_again_for_each_of_many_ids() -> None:
    assert asked_for(["user-7", "user-2", "user-5", "user-4"]) == asked_for(["user-7"])
    assert asked_for([7, 2, 5, 4]) == asked_for([7]) < asked_for(["user-7"])


@for_each(
    ("example", "message"),
    [
        ("user-9", "ids must be those of training examples, found 1 of 1 that is not: 'user-9'$"),
        (9, r"positions must be in 0\.\.8, found 9$"),
        (-1, "found -1$"),
    ],
)
def test_an_unknown_example_is_named(example: Any, message: str) -> None:
    source = Counting(examples(9))
    assert source_positions(source, ["user-8", 8]).tolist() == [8, 8]
    with pytest.raises(ValueError, match=message):
        positions(source, [example])
    with pytest.raises(ValueError, match="expected positions, found the id 'user-1'"):
        source_positions(UserDataset(examples(9)), ["user-1"])


@for_each(
    ("indices", "message"),
    [
        (["a", "user-1", "b"], "found 2 of 3 that are not: 'a', 'b'$"),
        ([f"{i}" for i in range(7)], "found 7 of 7 that are not: '0', '1', '2', '3', '4', ...$"),
        ([9, 1, -1], r"positions must be in 0\.\.8, found 2 of 3 that are not: 9, -1$"),
        (["user-3", "user-3"], "found 'user-3' twice$"),
        ([3, 3], "found 'user-3' twice$"),
        (["user-3", 3, 4, 4, 4], "found 2 of 5 again: 'user-3', 'user-4'$"),
    ],
)
def test_all_that_is_wrong_is_counted_and_named_by_id(indices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        positions(Counting(examples(9)), indices)


def test_without_ids_a_position_says_what_is_there_twice() -> None:
    with pytest.raises(ValueError, match="found position 3 twice$"):
        positions(UserDataset(examples(9)), [3, 3])


@for_each(
    ("calibration", "message"),
    [([], "at least one"), ([1, 1], "1 of them"), ([9], r"0\.\.8 .* found 9"), ([-1], "found -1")],
)
def test_a_calibration_part_that_is_empty_or_not_there_is_refused(calibration: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"calibration must be .*{message}"):
        Split(examples(9), [1], examples(9), calibration=calibration)


@pytest.mark.parametrize("calibration", [0.5, [0]])
def test_one_held_out_example_can_not_be_cut_in_two(calibration: Any) -> None:
    with pytest.raises(ValueError, match="test data must hold at least two examples, .* found 1"):
        Split(examples(9), [1], examples(1), calibration=calibration)
    split = Split(examples(9), [1], examples(2), calibration=calibration)
    assert (len(split.calibration), len(split.test)) == (1, 1)


@for_each(
    ("value", "message"),
    [
        ([1.0, 2.5], "whole numbers, found 1.0: give"),
        (torch.tensor([1.5, 2.5]), "whole numbers, found 1.5: give"),
        (np.array([1.5, 2.5]), "whole numbers, found 1.5: give"),
        (torch.arange(9) < 2, "found a mask: give torch.as_tensor.mask..nonzero"),
        (np.arange(9) < 2, "found a mask"),
        ([True, False, True], "found a mask"),
        (torch.tensor([[1, 2]]), r"found shape \[1, 2\]"),
        (torch.tensor(3), r"found shape \[\]"),
        (3, "found 3"),
        (None, "found None"),
        ("user-7", "found 'user-7'"),
        ([2**70], f"found {2**70}"),
        ([[1, 2]], r"whole numbers, found \[1, 2\]: give"),
    ],
)
def test_what_is_no_list_of_positions_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^forget must .*{message}"):
        read_positions(value, "forget")


@for_each(
    "value",
    [
        [7, 2],
        (7, 2),
        {7, 2},
        range(2, 8, 5),
        torch.tensor([7, 2], dtype=torch.uint8),
        np.array([7, 2]),
        iter([7, 2]),
    ],
)
def test_every_list_of_whole_numbers_is_read(value: Any) -> None:
    assert sorted(read_positions(value, "forget").tolist()) == [2, 7]


@for_each("calibration", [torch.tensor([0, 0, 1]), torch.arange(9) < 5, [0.5], ["a"]])
def test_calibration_needs_positions_that_differ(calibration: Any) -> None:
    with pytest.raises(ValueError, match="calibration must"):
        cut_held_out(9, calibration, 0)


def test_a_test_part_must_remain() -> None:
    with pytest.raises(ValueError, match="calibration must leave a test example, found all 9 positions"):
        Split(examples(9), [1], examples(9), calibration=range(9))


def test_a_split_of_data_that_has_shrunk_is_one_of_other_data(tmp_path: Path) -> None:
    Split(examples(9), [1], examples(9)).save(tmp_path / "split.json")
    with pytest.raises(ValueError, match=r"split.json was made from other data: .* 0\.\.2 .* found"):
        Split.load(tmp_path / "split.json", examples(9), examples(3))

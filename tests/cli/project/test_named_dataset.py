"""Ids for a data set: given once, and checked."""

import pytest
import torch
from torch.utils.data import TensorDataset

from for_each import for_each
from unweave.cli.project.named_dataset import NamedDataset


def named_dataset(*ids: object) -> NamedDataset:
    return NamedDataset(TensorDataset(torch.eye(3), torch.arange(3)), ids=ids)


def test_the_names_are_made_once_however_often_they_are_asked_for() -> None:
    source = named_dataset("a", "b", "c")
    assert source.names == ("a", "b", "c")
    assert source.names is source.names
    assert source.to("meta").names is source.names


@for_each(
    ("given", "message"),
    [
        (("a", "b"), "must name the 3 training examples, found 2"),
        (("a", "b", 3), r"must be strings, found 3: use str\(\)"),
        (("a", "b", "a"), "ids must be unique, found 'a' in 2 items"),
    ],
)
def test_other_ids_are_refused(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        named_dataset(*given)

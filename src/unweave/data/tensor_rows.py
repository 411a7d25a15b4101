"""Batches of a `TensorDataset`, or of a `Subset` of one, by one index of each tensor.

Read item by item, they take longer than the steps of a small model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
READING = (LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What an index raises that is out of range or no number, or that a tensor's layout does not take."""


def take_rows(
    dataset: Dataset[Any], positions: Sequence[int], label: int
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """The labels and the fields at some positions, as items read one by one have them.

    Args:
        dataset: Any data set. Classes derived from these two may read otherwise, and are not taken.
        positions: The positions.
        label: The position of the labels among the tensors.

    Returns:
        The labels, int64 with shape [batch] on the CPU, and the fields by their position; None unless the
        tensors are such a data set's, and one of them holds labels.
    """
    try:
        rows = rows_of(dataset, positions, label)
    except READING:  # the item that can't be read is named where items are read one by one
        return None
    return None if rows is None or (rows[0] < 0).any() else rows


def rows_of(
    dataset: Dataset[Any], positions: Sequence[int], label: int
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """The same, with any labels; an index that a data set does not have raises an error of torch's."""
    rows = list(positions)
    while type(dataset) is Subset:
        rows, dataset = [int(dataset.indices[row]) for row in rows], dataset.dataset
    if type(dataset) is not TensorDataset or not -len(dataset.tensors) <= label < len(dataset.tensors):
        return None
    index, tensors = torch.tensor(rows), list(dataset.tensors)
    classes = tensors.pop(label)
    if classes.dtype not in INTEGERS or classes.ndim != 1 or not tensors:
        return None
    labels = classes[index.to(classes.device)].cpu().long()
    return labels, {str(i): each.detach()[index.to(each.device)] for i, each in enumerate(tensors)}

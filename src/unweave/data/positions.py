"""Positions of examples, as users give them: a list, a tensor, an array or any other iterable."""

import operator
from collections.abc import Iterable
from typing import SupportsIndex, cast

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

LARGEST = 2**63 - 1
"""The largest position that a tensor holds."""


def read_positions(values: object, what: str) -> Int64[Tensor, " n"]:
    """Positions as a tensor on the CPU; `what` names them in errors.

    Raises:
        ValueError: If they are no whole numbers in one dimension.
    """
    if isinstance(values, Tensor) and values.ndim == 1 and is_integer(values.dtype):
        return values.long().cpu()
    return torch.tensor([read_position(each, what) for each in read_list(values, what)], dtype=torch.long)


def is_integer(dtype: torch.dtype) -> bool:
    """Whether a type holds integers; booleans are none."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def read_list(values: object, what: str) -> list[object]:
    """The entries of a list, a tensor, an array or any other iterable but a string.

    Raises:
        ValueError: If it is none of these, or has several dimensions.
    """
    if isinstance(values, Tensor | np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"{what} must have one dimension, found shape {list(values.shape)}")
        return values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{what} must be a list, such as [0, 7], found {values!r:.80}")
    return list(values)


def read_position(value: object, what: str) -> int:
    """One position.

    Raises:
        ValueError: If it is no whole number, or none that a tensor holds.
    """
    if isinstance(value, bool | np.bool_):
        raise ValueError(
            f"{what} must hold positions, found a mask: give torch.as_tensor(mask).nonzero()[:, 0]"
        )
    try:
        position = operator.index(cast(SupportsIndex, value))
    except TypeError as error:
        raise ValueError(
            f"{what} must hold whole numbers, found {value!r:.80}: give the positions of examples"
        ) from error
    if abs(position) > LARGEST:
        raise ValueError(
            f"{what} must hold positions up to {LARGEST}, found {value!r:.80}: give those of examples"
        )
    return position

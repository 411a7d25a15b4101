"""The items of a user's data set, checked one by one: a tuple `(input..., label)`, or a dict.

An invalid item raises a `ValueError` that names it.
"""

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from unweave.data.names import Names
from unweave.data.tensor_rows import take_rows

LABELS = ("label", "labels")
ID = "id"
LAST = -1
"""The position of the label in a tuple."""


@dataclass(frozen=True, eq=False)
class Item:
    """One example.

    Args:
        position: The position in its data set.
        fields: The inputs of the model, by key of the dict or by position in the tuple.
        label: The label, at least 0.
        name: The string id, if it has one.
        keywords: Whether the model takes the fields by name, as for a dict with several.
    """

    position: int
    fields: dict[str, Tensor]
    label: int
    name: str | None
    keywords: bool

    def digest(self) -> bytes:
        """SHA-256 of everything but the position."""
        sha = hashlib.sha256(repr((self.label, self.name, self.keywords)).encode())
        for key, value in self.fields.items():
            sha.update(repr((key, value.dtype, tuple(value.shape))).encode())
            flat = value.detach().cpu().contiguous().reshape(-1)  # a view as bytes needs contiguous memory
            sha.update(flat.view(torch.uint8).numpy().data)
        return sha.digest()


@dataclass(frozen=True, eq=False)
class Items(Dataset[Item]):
    """A data set whose items are checked and parsed.

    Args:
        dataset: A data set with a length, read by position.
        label: Key of the label in a dict, position in a tuple; None: see `UserDataset`.
        id: Key of the string id in a dict; None: see `UserDataset`.
    """

    dataset: Dataset[Any]
    label: str | int | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        refuse_other_reading(self.dataset)
        try:
            length = len(self)
        except TypeError as error:
            raise ValueError(f"the data set must have a length: {error}; define __len__") from error
        if length == 0:
            raise ValueError("the data set must have an example, found none")

    def __len__(self) -> int:
        return len(self.dataset)  # pyright: ignore[reportArgumentType]  # torch's Dataset declares no length

    def __getitem__(self, position: int) -> Item:
        item = self._read(position)
        if isinstance(item, Mapping):
            return self._from_dict(position, dict(item))
        if isinstance(item, tuple | list):
            return self._from_tuple(position, list(item))
        raise ValueError(f"item {position} must be a tuple (input..., label) or a dict, found {_kind(item)}")

    def read(self, positions: Sequence[int]) -> list[Item]:
        """The items at some positions."""
        return [self[position] for position in positions]

    def stack(self, positions: Sequence[int]) -> tuple[Tensor, Tensor, dict[str, Tensor], bool]:
        """The items at some positions as a batch; see `stack_items`."""
        if self.id is None and not isinstance(self.label, str):
            rows = take_rows(self.dataset, positions, LAST if self.label is None else self.label)
            if rows is not None:
                return torch.tensor(positions), *rows, False
        return stack_items(self.read(positions))

    def _read(self, position: int) -> Any:
        """Reads an item; an error of the data set's own code becomes a sentence that names the item."""
        try:
            return self.dataset[position]
        except Exception as error:
            raise ValueError(
                f"item {position} of the data set raised {type(error).__name__}: {error}"
            ) from error

    def _from_dict(self, position: int, item: dict[Any, Any]) -> Item:
        keys = LABELS if self.label is None else (self.label,)
        label_keys = [key for key in keys if key in item]
        if len(label_keys) != 1:
            raise ValueError(
                f"item {position} must have one label under {' or '.join(map(repr, keys))}, "
                f"found the keys {', '.join(map(repr, item))}: say which with label="
            )
        label = _label(position, item.pop(label_keys[0]))
        name = _name(position, item, self.id)
        fields = {str(key): _tensor(position, key, value) for key, value in item.items()}
        if not fields:
            raise ValueError(f"item {position} must have a tensor besides its label, found none")
        return Item(position, fields, label, name, keywords=len(fields) > 1)

    def _from_tuple(self, position: int, item: list[Any]) -> Item:
        if isinstance(self.label, str) or self.id is not None:
            raise ValueError(
                f"label= and id= name keys of a dict, found a tuple in item {position}: drop them"
            )
        place = LAST if self.label is None else self.label
        if len(item) < 2 or not -len(item) <= place < len(item):
            raise ValueError(
                f"item {position} must be (input..., label) with the label at {place}, "
                f"found {len(item)} entries"
            )
        label = _label(position, item.pop(place))
        fields = {str(place): _tensor(position, place, value) for place, value in enumerate(item)}
        return Item(position, fields, label, None, keywords=False)


def refuse_other_reading(dataset: object) -> None:
    """Raises if a data set is of a kind that gives its items in its own order only."""
    if isinstance(dataset, DataLoader):
        raise ValueError(
            "the data set must read by position, found a DataLoader: give its data set, loader.dataset"
        )
    if isinstance(dataset, IterableDataset):
        raise ValueError("the data set must read by position, found an IterableDataset: store it as a list")


def stack_field(key: str, items: Sequence[Item]) -> Tensor:
    """One field of several items as a batch, with shape [batch, ...]."""
    first = items[0]
    for item in items:
        if item.fields.keys() != first.fields.keys():
            raise ValueError(
                f"items must have the same fields, found {', '.join(first.fields)} in item {first.position} "
                f"and {', '.join(item.fields)} in item {item.position}"
            )
        if item.fields[key].shape != first.fields[key].shape:
            raise ValueError(
                f"field {key!r} has shape {list(first.fields[key].shape)} in item {first.position} and "
                f"{list(item.fields[key].shape)} in item {item.position}: bring them to one shape"
            )
        if item.fields[key].dtype != first.fields[key].dtype:
            raise ValueError(
                f"field {key!r} is {first.fields[key].dtype} in item {first.position} and "
                f"{item.fields[key].dtype} in item {item.position}: bring them to one type"
            )
    return torch.stack([item.fields[key] for item in items])


def stack_items(items: Sequence[Item]) -> tuple[Tensor, Tensor, dict[str, Tensor], bool]:
    """The positions, the labels and the fields of a batch, and whether a model takes the fields by name."""
    fields = {key: stack_field(key, items) for key in items[0].fields}
    positions = torch.tensor([item.position for item in items])
    return positions, torch.tensor([item.label for item in items]), fields, items[0].keywords


def refuse_repeated_names(names: Names) -> None:
    """Raises if two ids are equal."""
    if (repeat := names.most_common()) and repeat[1] > 1:
        raise ValueError(f"ids must be unique, found {repeat[0]!r} in {repeat[1]} items")


def _label(position: int, value: object) -> int:
    try:
        label = operator.index(cast(SupportsIndex, value))
    except TypeError:  # asked first, `isinstance` would take longer than reading the item
        label = -1
    if label < 0:
        actual = repr(value) if _count(value) == 1 else f"{_count(value)} numbers"
        raise ValueError(
            f"item {position} must have an integer of at least 0 as its label, found {actual}{_advice(value)}"
        )
    return label


def _count(label: object) -> int:
    """The number of entries of a label."""
    if isinstance(label, Tensor):
        return label.numel()
    return np.size(label) if isinstance(label, np.ndarray | list | tuple) else 1


def _advice(label: object) -> str:
    """Advice for a label that is no class, if its kind is recognisable."""
    if _count(label) != 1:
        return (
            ": unweave is for classifiers with one label per example, several labels are not supported; of a "
            "one-hot label give the argmax"
        )
    if isinstance(label, float | np.floating) or (isinstance(label, Tensor) and label.is_floating_point()):
        return ": unweave is for classifiers, not for regression; of a class give int(label)"
    return ""


def _name(position: int, item: dict[Any, Any], key: str | None) -> str | None:
    """Reads the id of a dict item."""
    name = item.pop(ID if key is None else key, None)
    if name is None and key is not None:
        raise ValueError(f"item {position} must have an id under {key!r}, found none")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"item {position} must have a string as its id, found {name!r}: use str()")
    return name


def _tensor(position: int, key: object, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"item {position}, field {key!r} must be a tensor, found {_kind(value)}: add a transform"
        )
    return value.detach()  # a step must leave no gradient in a user's data


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")

"""Any map-style `torch.utils.data.Dataset` as a source, read through a `DataLoader`.

There is no augmentation: unlearning and auditing need the same example at every read, so a data set with
random transforms is refused.
"""

import copy
import hashlib
import multiprocessing
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from unweave.choices import refuse_outside
from unweave.data import Raw, Source
from unweave.data.names import Names
from unweave.data.user_items import Item, Items, refuse_repeated_names

T = TypeVar("T")
SCAN = 256


@dataclass(frozen=True, eq=False)
class UserDataset:
    """A source that reads its examples from a data set, batch by batch.

    Items are tuples `(input..., label)`, or dicts of a label, tensors and optionally a string id. The model
    gets the inputs of a tuple in order, the only tensor of a dict, or several tensors by name.

    Args:
        dataset: A data set with a length; `dataset[i]` is the same at every call.
        label: Key of the label in a dict, position in a tuple. None: "label" or "labels"; the last one.
        id: Key of the string id in a dict. None: "id" if the items have it.
        workers: The number of processes that read ahead; 0 reads in this process. Batches and their order
            don't depend on it. They are forks where the platform has these, and else import the data set.
        device: The device of the batches. For CUDA, workers' batches go through pinned memory.
        prefetch: The number of batches that each worker reads ahead.
    """

    dataset: Dataset[Any]
    label: str | int | None = None
    id: str | None = None
    workers: int = 0
    device: torch.device | str = "cpu"
    prefetch: int = 2

    def __post_init__(self) -> None:
        self._refuse_unfit_workers()
        for position in sorted({0, len(self) // 2, len(self) - 1}):
            if self._items[position].digest() != self._items[position].digest():
                raise ValueError(
                    f"item {position} must be the same at every read, found two that differ: "
                    "give the data set without its random transforms"
                )

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The label of every example, with shape [n]. The first call reads the whole data set once."""
        return self._scan.labels

    @property
    def names(self) -> Names | None:
        """The string id of every example, in order; None if the items have none."""
        return self._scan.names

    def __len__(self) -> int:
        return len(self._items)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield the examples at the positions of each index tensor; see `Source.stream`."""
        for ids, labels, values, keywords in self._read(self._items.stack, order):
            fields = {key: self._send(value) for key, value in values.items()}
            inputs = fields if keywords else tuple(fields.values())
            yield Raw(self._send(ids), inputs, self._send(labels))

    def digest(self) -> str:
        """SHA-256 of the fields, label and id of every example, in order."""
        return self._scan.digest

    def to(self, device: torch.device | str) -> "UserDataset":
        """The same, with batches on `device`."""
        on_device = copy.copy(self)  # not `replace`: this keeps the cached scan of the data set
        object.__setattr__(on_device, "device", device)
        return on_device

    def read_ahead(self, *, workers: int, prefetch: int = 2) -> "UserDataset":
        """The same, with `workers` processes that each read `prefetch` batches ahead.

        Raises:
            ValueError: If `workers` is negative, or `prefetch` below 1.
        """
        dataset = copy.copy(self)  # as in `to`
        object.__setattr__(dataset, "workers", workers)
        object.__setattr__(dataset, "prefetch", prefetch)
        dataset._refuse_unfit_workers()
        return dataset

    def _refuse_unfit_workers(self) -> None:
        refuse_outside(self, "[0, inf)", "workers")
        refuse_outside(self, "[1, inf)", "prefetch")

    def _read(self, read_batch: Callable[[list[int]], T], order: Iterable[Tensor]) -> Iterator[T]:
        """Yields what `read_batch` returns of each index tensor."""
        loader = DataLoader(
            range(len(self)),  # pyright: ignore[reportArgumentType]  # a DataLoader reads any sequence
            batch_sampler=_Lists(order),
            num_workers=self.workers,
            collate_fn=partial(batch_or_error, read_batch),
            pin_memory=self._pins,
            prefetch_factor=self.prefetch if self.workers else None,
            # another process that is no fork could not import a user's file
            multiprocessing_context="fork" if self.workers and can_fork() else None,
            generator=torch.Generator(),  # otherwise it would draw from the global generator
        )
        for batch in loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch

    @property
    def _pins(self) -> bool:
        return self.workers > 0 and torch.device(self.device).type == "cuda"

    def _send(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=self._pins)

    @cached_property
    def _items(self) -> Items:
        return Items(self.dataset, self.label, self.id)

    @cached_property
    def _scan(self) -> "Scan":
        sha, labels = hashlib.sha256(), torch.empty(len(self), dtype=torch.int64)
        has_names = self._items[0].name is not None

        def names() -> Iterator[str]:
            for item in self._in_order():
                sha.update(item.digest())
                labels[item.position] = item.label
                if (item.name is not None) != has_names:
                    position = item.position if has_names else 0
                    raise ValueError(f"every item must have an id or none, found none in item {position}")
                if item.name is not None:
                    yield item.name

        all_names = Names(names())
        refuse_repeated_names(all_names)
        return Scan(labels, all_names if has_names else None, sha.hexdigest())

    def _in_order(self) -> Iterator[Item]:
        """Every item, in batches that hold no index of the whole data set."""
        n = len(self)
        starts = range(0, n, SCAN)
        order = (torch.arange(i, min(i + SCAN, n)) for i in starts)
        return chain.from_iterable(self._read(self._items.read, order))


def can_fork() -> bool:
    """Whether processes of this platform can be copies of their parent."""
    return "fork" in multiprocessing.get_all_start_methods()


def batch_or_error(read_batch: Callable[[list[int]], T], positions: list[int]) -> T | ValueError:
    """A batch, or the error of reading it: raised in a worker, it would become the text of a traceback."""
    try:
        return read_batch(positions)
    except ValueError as error:
        return error


@dataclass(frozen=True, eq=False)
class Scan:
    """The facts from one pass over the whole data set."""

    labels: Tensor
    names: Names | None
    digest: str


@dataclass(frozen=True, eq=False)
class _Lists:
    """Index tensors as lists for a `DataLoader`, converted one by one, since an order may be endless."""

    order: Iterable[Tensor]

    def __iter__(self) -> Iterator[list[int]]:
        return (index.tolist() for index in self.order)


def dataset_of(source: Source, ids: Tensor) -> Dataset:
    """Some examples of a source as a data set: a user's own items, or tuples `(input..., label)`."""
    if not isinstance(source, UserDataset):
        return Examples(source, ids)
    return Subset(source.dataset, array("q", ids.numpy().tobytes()))  # eight bytes each, read as int


class Examples(Dataset):
    """Some examples of a source as a data set of `(input..., label)` tuples.

    Args:
        source: The source; items are the same at every read.
        ids: The positions of the examples in it.
    """

    def __init__(self, source: Source, ids: Tensor) -> None:
        self.source, self.ids = source, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor | int, ...]:
        (raw,) = self.source.stream([self.ids[index : index + 1]])
        fields = raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs
        return (*(field[0] for field in fields), int(raw.label))

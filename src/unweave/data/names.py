"""The string ids of a data set in Arrow's memory: as Python strings, ten million take a gigabyte."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Int64
from torch import Tensor

CHUNK = 2**13


class Names(Sequence[str]):
    """Strings in Arrow's memory, read like a tuple.

    Args:
        names: The strings; an iterator is read once, a chunk at a time.
    """

    def __init__(self, names: Iterable[str]) -> None:
        rest = iter(names)
        chunks = iter(lambda: list(islice(rest, CHUNK)), [])
        self.array = pa.chunked_array([pa.array(each, pa.string()) for each in chunks], pa.string())

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        value = self.array[index]
        return tuple(value.to_pylist()) if isinstance(index, slice) else value.as_py()

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(chunk.to_pylist() for chunk in self.array.chunks)

    def __eq__(self, other: object) -> bool:
        """Whether these are the strings of another sequence, in order."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # equal to tuples, whose hashes differ

    def most_common(self) -> tuple[str, int] | None:
        """The most frequent name and its count; None if there are no names."""
        if not len(self):
            return None
        counts = self.array.value_counts()
        place = int(counts.field("counts").to_numpy().argmax())
        return counts.field("values")[place].as_py(), counts.field("counts")[place].as_py()


def find_names(names: Sequence[str], wanted: Sequence[str]) -> Int64[Tensor, " wanted"]:
    """The position of each wanted name, -1 where there is none; `names` are unique."""
    array = names.array if isinstance(names, Names) else pa.chunked_array([pa.array(names, pa.string())])
    queries = pa.array(wanted, pa.string())
    distinct = pc.SetLookupOptions(queries.unique())
    matches = pc.call_function("index_in", [array], distinct).fill_null(-1).to_numpy()
    (places,) = (matches >= 0).nonzero()
    place_of_distinct = np.full(len(queries), -1)
    place_of_distinct[matches[places]] = places
    order = pc.call_function("index_in", [queries], distinct).to_numpy(zero_copy_only=False)
    return torch.from_numpy(place_of_distinct[order])

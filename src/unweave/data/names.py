"""The string ids of a data set in one block of memory: as Python strings, ten million need a gigabyte."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import overload

import numpy as np
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
        import pyarrow as pa  # takes time, and only ids need it

        waiting = iter(names)
        chunks = iter(lambda: list(islice(waiting, CHUNK)), [])
        self.array = pa.chunked_array([pa.array(each, pa.string()) for each in chunks], pa.string())

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        found = self.array[index]
        return tuple(found.to_pylist()) if isinstance(index, slice) else found.as_py()

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(chunk.to_pylist() for chunk in self.array.chunks)

    def __eq__(self, other: object) -> bool:
        """Whether these are the strings of another sequence, in order."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # equal to tuples, whose hashes differ

    def most_common(self) -> tuple[str, int] | None:
        """A name that occurs most often, and how often; None if there are no names."""
        if not len(self):
            return None
        counts = self.array.value_counts()
        place = int(counts.field("counts").to_numpy().argmax())
        return counts.field("values")[place].as_py(), counts.field("counts")[place].as_py()


def find_names(names: Sequence[str], wanted: Sequence[str]) -> Int64[Tensor, " wanted"]:
    """The position of each wanted name, -1 where there is none; `names` are unique."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = names.array if isinstance(names, Names) else pa.chunked_array([pa.array(names, pa.string())])
    asked = pa.array(wanted, pa.string())
    distinct = pc.SetLookupOptions(asked.unique())
    hits = pc.call_function("index_in", [array], distinct).fill_null(-1).to_numpy()  # which one a name is
    (places,) = (hits >= 0).nonzero()
    found = np.full(len(asked), -1)
    found[hits[places]] = places
    order = pc.call_function("index_in", [asked], distinct).to_numpy(zero_copy_only=False)
    return torch.from_numpy(found[order])

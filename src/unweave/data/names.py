"""The string ids of a data set in one block of memory: as Python strings, ten million need a gigabyte."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from jaxtyping import Int64, UInt64
from torch import Tensor

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 2**13
HASHED = 32
"""The number of bytes at each end of a string that its hash depends on."""

PRIME = np.uint64(0x100000001B3)


class Names(Sequence[str]):
    """Strings in Arrow's memory, read like a tuple.

    Args:
        names: The strings; an iterator is read once, a chunk at a time.
    """

    def __init__(self, names: Iterable[str]) -> None:
        import pyarrow as pa  # takes time, and only ids need it

        iterator = iter(names)
        chunks = iter(lambda: list(islice(iterator, CHUNK)), [])
        self.array = pa.chunked_array([as_array(each) for each in chunks], pa.string())

    @classmethod
    def of_arrays(cls, arrays: Sequence["pa.Array"]) -> "Names":
        """The strings of several arrays, which are not copied."""
        import pyarrow as pa

        names = cls(())
        names.array = pa.chunked_array(arrays, pa.string())
        return names

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
        """A name that occurs most often, and how often; None if there are no names."""
        import pyarrow as pa

        if not len(self):
            return None
        hashes = np.concatenate([hash_strings(chunk) for chunk in self.array.chunks])
        order = np.sort(hashes)
        repeats = order[1:][order[1:] == order[:-1]]
        if not len(repeats):
            return self[0], 1
        # a table of all names takes 140 bytes each
        counts = self.array.filter(pa.array(np.isin(hashes, repeats))).value_counts()
        place = int(counts.field("counts").to_numpy().argmax())
        return counts.field("values")[place].as_py(), counts.field("counts")[place].as_py()


def hash_strings(strings: "pa.Array") -> UInt64[np.ndarray, " n"]:
    """A hash of every string: of its length and its first and last bytes (FNV-1a, Fowler, Noll and Vo)."""
    _, offsets, content = strings.buffers()
    edges = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    starts, lengths = edges[:-1], np.diff(edges)
    text = np.frombuffer(content or b"", np.uint8)
    hashes = lengths.astype(np.uint64)
    longest = int(lengths.max(initial=0))
    for place in range(min(longest, HASHED)):
        (rows,) = (lengths > place).nonzero()
        hashes[rows] = (hashes[rows] ^ text[starts[rows] + place]) * PRIME
    for place in range(HASHED, min(longest, 2 * HASHED)):
        (rows,) = (lengths > place).nonzero()
        hashes[rows] = (hashes[rows] ^ text[edges[rows + 1] - 1 - (place - HASHED)]) * PRIME
    return hashes


def as_array(names: Sequence[str]) -> "pa.Array":
    """Strings as an array.

    Raises:
        ValueError: If one is no text, as the name of a file may be.
    """
    import pyarrow as pa

    try:
        return pa.array(names, pa.string())
    except UnicodeEncodeError as error:
        raise ValueError(
            f"ids must be text that UTF-8 can encode, found {error.object!r}: rename it"
        ) from error


def find_names(names: Sequence[str], queries: Sequence[str]) -> Int64[Tensor, " query"]:
    """The position of each name to find, -1 where there is none; `names` are unique."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = names.array if isinstance(names, Names) else pa.chunked_array([as_array(names)])
    query_array = as_array(queries)
    lookup = pc.SetLookupOptions(query_array.unique())
    hits = pc.call_function("index_in", [array], lookup).fill_null(-1).to_numpy()  # which one a name is
    (places,) = (hits >= 0).nonzero()
    positions = np.full(len(query_array), -1)
    positions[hits[places]] = places
    order = pc.call_function("index_in", [query_array], lookup).to_numpy(zero_copy_only=False)
    return torch.from_numpy(positions[order])

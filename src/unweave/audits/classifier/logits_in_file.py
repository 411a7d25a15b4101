"""Logits that stay in their file: a part is read on use, and the parts used last stay in memory.

An audit compares the answers of two dozen models, and at any time needs one part of one or two of them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Shaped

from unweave.audits.classifier.columns import Rows, iterate_logits, open_parquet

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MEMORY_BYTES = 2**27
"""The most bytes of logits that stay in memory between two uses, over all files."""

Stamp = tuple[int, int, int, int]
"""Size, modification time, number and change time of a file: a copy may keep the first two of another."""

Order = Shaped[np.ndarray, "_"] | slice
"""Which rows to take, in this order; a slice takes all as they are."""


class LastUsed:
    """The arrays that were used last, up to a number of bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.arrays = most, OrderedDict[object, np.ndarray]()

    def read(self, key: object, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, which is read if it is not kept."""
        array = self.arrays.pop(key, None)
        if array is None:
            array = read()
        if array.nbytes > self.most:
            return array
        self.arrays[key] = array
        while sum(each.nbytes for each in self.arrays.values()) > self.most:
            self.arrays.popitem(last=False)
        return array


LAST_USED = LastUsed(MEMORY_BYTES)


@dataclass(frozen=True, eq=False)
class LogitsInFile(Mapping[str, Float32[np.ndarray, "_ _"]]):
    """The logits `[batch, class]` of each part of a parquet file, all finite.

    Args:
        path: The file.
        rows: The rows of each part in the file, ascending.
        classes: The number of logits of each row.
        stamp: What told the file from others when it was checked.
        order: The order of the rows of a part; a part that it lacks keeps the order of the file.
    """

    path: Path
    rows: Mapping[str, Rows | range]
    classes: int
    stamp: Stamp
    order: Mapping[str, Shaped[np.ndarray, "_"]] = field(default_factory=dict)

    def __getitem__(self, part: str) -> Float32[np.ndarray, "_ _"]:
        """Reads a part.

        Raises:
            ValueError: If the file has changed since it was checked.
        """
        rows = self.rows[part]
        logits = LAST_USED.read((self.path, self.stamp, part), lambda: self._read(rows))
        return logits[self.order[part]] if part in self.order else logits

    def _read(self, rows: Rows | range) -> Float32[np.ndarray, "_ _"]:
        with open_parquet(self.path) as file:
            if stamp(self.path) != self.stamp:
                raise ValueError(f"{self.path} has changed while its model was audited: audit it again")
            indices = np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows
            return read_rows(file, {"": indices}, self.path)[0][""]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def reorder(self, order: Mapping[str, Order]) -> "LogitsInFile":
        """The same logits of some parts, with the rows of each in another order."""
        orders = {part: each for part, each in order.items() if not isinstance(each, slice)}
        orders |= {part: each[order[part]] for part, each in self.order.items() if part in order}
        return replace(self, rows={part: self.rows[part] for part in order}, order=orders)


def shape_of(logits: Mapping[str, Float[np.ndarray, "_ _"]], part: str) -> tuple[int, ...]:
    """The shape of the logits of a part, found without reading them."""
    if isinstance(logits, LogitsInFile):
        return len(logits.rows[part]), logits.classes
    return logits[part].shape


def reorder(
    logits: Mapping[str, Float[np.ndarray, "_ _"]], order: Mapping[str, Order]
) -> Mapping[str, Float[np.ndarray, "_ _"]]:
    """The logits of some parts with the rows of each in another order."""
    if isinstance(logits, LogitsInFile):
        return logits.reorder(order)
    return {part: logits[part][rows] for part, rows in order.items()}


def stamp(path: Path) -> Stamp:
    """What tells a file from others, and from itself after a change."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


def without_gaps(rows: Rows) -> Rows | range:
    """Ascending rows, as a range if none is left out: for 10^6 rows that saves 8 MB."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return range(int(rows[0]), int(rows[-1]) + 1)
    return rows


def read_rows(
    file: "ParquetFile", rows: Mapping[str, Rows], path: str | Path
) -> tuple[dict[str, Float32[np.ndarray, "_ _"]], bool]:
    """Reads some rows of each part, and tells whether every logit that was read on the way is finite.

    Only the result and one piece of the file are in memory.
    """
    pieces = iterate_logits(file, rows.values(), path)
    first_piece = next(pieces)
    width, finite = first_piece[1].shape[1], True
    logits = {part: np.empty((len(positions), width), dtype=np.float32) for part, positions in rows.items()}
    for begin, piece in chain([first_piece], pieces):
        finite &= bool(np.isfinite(piece).all())
        for part, positions in rows.items():
            start, stop = np.searchsorted(positions, (begin, begin + len(piece)))
            logits[part][start:stop] = piece[positions[start:stop] - begin]
    return logits, finite


def check_rows(file: "ParquetFile", rows: Rows, path: str | Path) -> tuple[int, int | None]:
    """Reads a file once, a piece at a time: the number of classes, and the first row with NaN or infinity."""
    width, bad_row = None, None
    for begin, piece in iterate_logits(file, [rows], path):
        width = piece.shape[1]
        if bad_row is None and len(bad_rows := np.flatnonzero(~np.isfinite(piece).all(axis=1))):
            bad_row = begin + int(bad_rows[0])
    assert width is not None
    return width, bad_row

"""A data set of Hugging Face's `datasets` in Arrow files, read by columns: ten million examples in seconds.

`UserDataset` reads a data set once item by item, for labels, ids and digest, which takes a sixth of a
millisecond an item here. Columns of numbers and strings give these facts a block of rows at a time. Data sets
with other columns, such as images, or with a transform are read item by item.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unweave.data import Raw
from unweave.data.arrow_columns import as_tensor, content, has_one_shape, is_integer, is_text
from unweave.data.names import Names
from unweave.data.other_libraries import OfAnotherLibrary
from unweave.data.user_dataset import Scan, UserDataset
from unweave.data.user_items import ID, LABELS, refuse_repeated_names

if TYPE_CHECKING:
    import pyarrow as pa

END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of a stream of Arrow, as `datasets` writes it."""

BLOCK = 2**16
"""Rows that are read at once; the digest depends on it."""


@runtime_checkable
class Table(Protocol):
    """A table of Arrow, in memory or in files."""

    def __len__(self) -> int: ...

    def column(self, i: str) -> "pa.ChunkedArray":
        """One column."""
        ...


@runtime_checkable
class ArrowRows(Protocol):
    """What is used of `datasets.Dataset`."""

    @property
    def data(self) -> Table:
        """The table, before rows were selected."""
        ...

    @property
    def cache_files(self) -> list[dict[str, str]]:
        """The file of each part of the table, as "filename"; none if it is in memory."""
        ...

    @property
    def format(self) -> Mapping[str, Any]:
        """The library and the columns of the values that are returned."""
        ...

    @property
    def column_names(self) -> list[str]:
        """All columns."""
        ...

    def with_format(
        self, type: str | None = None, columns: list[str] | None = None, **settings: object
    ) -> object:
        """The same rows as values of another library."""
        ...


@dataclass(frozen=True, eq=False)
class ArrowDataset(UserDataset):
    """A source that reads labels, ids and digest by columns, and batches at once; see `read_by_columns`.

    Args:
        columns: The names of the columns: the fields, the label, and the id if there is one.
    """

    columns: tuple[str, ...] = ()

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield the examples at the positions of each index tensor; see `Source.stream`."""
        data = Batches(self._arrow, self._fields)
        if self.workers:
            batches = self._read(data.read_with_positions, order)
        else:
            batches = ((index, data.read(index.tolist())) for index in order)
        for index, values in batches:
            fields = {key: self._send(value) for key, value in values.items()}
            inputs = fields if len(fields) > 1 else tuple(fields.values())
            yield Raw(index.to(self.device), inputs, self.labels[index].to(self.device))

    @cached_property
    def _fields(self) -> list[str]:
        return [name for name in self.columns if name not in (*LABELS, ID)]

    @cached_property
    def _arrow(self) -> Any:
        """The fields alone, as Arrow's columns."""
        rows: Any = rows_of(self.dataset)
        return rows.with_format("arrow", columns=self._fields)

    @cached_property
    def _scan(self) -> Scan:
        sha, labels, ids = hashlib.sha256(repr((len(self), self.columns)).encode()), [], []
        for block in self._blocks():
            for name, column in block.items():
                for part in content(column):
                    sha.update(part)
                if name in LABELS:
                    labels.append(column.to_numpy().astype(np.int64))
                elif name == ID:
                    ids.append(column)
        all_labels, names = torch.from_numpy(np.concatenate(labels)), Names.of_arrays(ids)
        if (least := int(all_labels.min())) < 0:
            place = int(all_labels.argmin())
            raise ValueError(f"item {place} must have an integer of at least 0 as its label, found {least}")
        refuse_repeated_names(names)
        return Scan(all_labels, names if ids else None, sha.hexdigest())

    def _blocks(self) -> Iterator[dict[str, "pa.Array"]]:
        """The columns of a block of rows after the other."""
        rows: Any = rows_of(self.dataset)
        for block in rows.with_format("arrow", columns=list(self.columns)).iter(BLOCK):
            yield {name: block[name].combine_chunks() for name in self.columns}


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of columns.

    Args:
        rows: The rows, as Arrow's columns.
        fields: The names of the columns.
    """

    rows: Any
    fields: Sequence[str]

    def read(self, positions: list[int]) -> dict[str, Tensor]:
        """The columns of some rows."""
        columns = self.rows[positions]
        return {key: as_tensor(columns[key]) for key in self.fields}

    def read_with_positions(self, positions: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The positions and the columns of some rows."""
        return torch.tensor(positions), self.read(positions)


def rows_of(data: object) -> object:
    """The data set of another library, if it is one."""
    return data.rows if isinstance(data, OfAnotherLibrary) else data


def read_by_columns(data: Dataset[Any]) -> ArrowDataset | None:
    """A data set as a source that is read by columns; None if it must be read item by item.

    It can be read by columns if it returns tensors of numbers, all of one shape, an integer as the label and
    optionally an id, and nothing is missing.

    Raises:
        ValueError: If a file ends early.
    """
    rows = rows_of(data)
    if not isinstance(rows, ArrowRows):
        return None
    refuse_short_files(rows)
    if not len(rows.data) or rows.format["type"] != "torch" or rows.format["format_kwargs"]:
        return None
    tensors = rows.format["columns"]
    names = rows.column_names if rows.format["output_all_columns"] else tensors
    fields = [name for name in names if name not in (*LABELS, ID)]
    labels, ids = [name for name in names if name in LABELS], [name for name in names if name == ID]
    columns = {name: rows.data.column(name) for name in names}
    is_supported = (
        len(labels) == 1
        and is_integer(columns[labels[0]])
        and all(is_text(columns[name]) for name in ids)
        and fields
        and all(name in tensors and has_one_shape(columns[name]) for name in fields)
    )
    return ArrowDataset(data, columns=(*fields, *labels, *ids)) if is_supported else None


def refuse_short_files(rows: ArrowRows) -> None:
    """Raises if a file lacks its end: cut between two blocks it reads without an error, as shorter data."""
    for path in (Path(each["filename"]) for each in rows.cache_files):
        if not path.exists():
            continue  # removed since it was mapped, which keeps its rows
        with path.open("rb") as file:
            file.seek(-min(len(END), path.stat().st_size), SEEK_END)
            if file.read() != END:
                raise ValueError(
                    f"{path} ends early: it lacks the mark at the end of an Arrow stream, so rows may be "
                    "missing; write or download it again"
                )

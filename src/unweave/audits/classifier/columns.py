"""The columns of a parquet file of evidence, checked: logits are read in pieces, all others whole."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from unweave.split import PARTS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

KEYS = ("part", "id", "label")
COLUMNS = (*KEYS, "logits")
EXPECTED = {"part": "names", "id": "names or positions"}
CLASSES_KEY = b"unweave.forgotten_classes"

PIECE, BUFFER = 2**10, 2**20
"""The number of rows whose logits are decoded at once, and of bytes that are fetched at once."""

Rows = Int64[np.ndarray, "_"]
Piece = tuple[int, Float32[np.ndarray, "_ _"]]  # its first row in the file, and its logits [row, class]


@dataclass(frozen=True)
class Keys:
    """What a file holds beside logits.

    Args:
        rows: The rows of each part in the file, ascending.
        ids: The id of each row.
        labels: The true class of each row.
        forgotten_classes: The classes that the file names as forgotten whole.
    """

    rows: Mapping[str, Rows]
    ids: Shaped[np.ndarray, " row"]
    labels: Int64[np.ndarray, " row"]
    forgotten_classes: tuple[int, ...]


@contextmanager
def open_parquet(path: str | Path) -> "Iterator[ParquetFile]":
    """Opens a file; a missing or damaged one is a ValueError, also while it is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_absent(path)
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER) as file:
            yield file
    except (pa.ArrowException, OSError) as error:  # a page that can't be decompressed raises an OSError
        raise ValueError(f"expected a parquet file at {path}, found: {error}") from error


def refuse_absent(path: str | Path) -> None:
    """Raises if there is no such file."""
    if not Path(path).is_file():
        raise ValueError(f"expected evidence at {path}, found no such file")


def read_keys(file: "ParquetFile", path: str | Path) -> Keys:
    """Reads all columns but the logits, and checks that every column exists and has a usable type."""
    schema = file.schema_arrow
    if any(schema.names.count(name) != 1 for name in COLUMNS):
        raise ValueError(f"{path} must have the columns {COLUMNS}, found {tuple(schema.names)}")
    for name in COLUMNS:
        _refuse_type(schema.field(name).type, f"{name} of {path}", name)
    table = file.read(columns=list(KEYS))
    table.validate(full=True)  # the text of a damaged file may not decode
    for name in KEYS:
        _refuse_empty(table[name], f"{name} of {path}")
    labels, rows, ids = _labels(table["label"], path), _rows(table["part"], path), table["id"].to_numpy()
    for part, positions in rows.items():
        if len(np.unique(ids[positions])) != len(positions):
            raise ValueError(f"part {part!r} of {path} names an id twice")
    classes = (schema.metadata or {}).get(CLASSES_KEY, b"").decode()
    return Keys(rows, ids, labels, tuple(int(label) for label in classes.split(",") if label))


def iterate_logits(file: "ParquetFile", rows: Collection[Rows], path: str | Path) -> Iterator[Piece]:
    """Yields the logits of a file in pieces, without the groups of rows that hold none of these rows.

    Raises:
        ValueError: If rows have no logits, or differ in their number.
    """
    positions, begin, widths = np.sort(np.concatenate([*rows])), 0, set()
    for group in range(file.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        if np.diff(np.searchsorted(positions, (begin, end))):
            for batch in file.iter_batches(PIECE, row_groups=[group], columns=["logits"]):
                batch.validate(full=True)
                logits = _matrix(batch["logits"], begin, path)
                widths.add(logits.shape[1])
                if len(widths) > 1:
                    raise _unequal_rows(path, widths)
                yield begin, logits
                begin += len(batch)
            if begin != end:
                raise ValueError(f"expected a parquet file at {path}, found rows without logits")
        begin = end


def _unequal_rows(path: str | Path, lengths: Collection[int]) -> ValueError:
    """The error of rows of different lengths."""
    return ValueError(f"expected one logit per class in every row of {path}, found {sorted(lengths)}")


def _matrix(column: "pa.Array", begin: int, path: str | Path) -> Float32[np.ndarray, "row class"]:
    import pyarrow.compute as pc

    _refuse_empty(column, f"logits of {path}", begin=begin)
    count = pc.list_value_length  # pyright: ignore[reportAttributeAccessIssue]  (made at import)
    lengths = count(column).unique().to_pylist()
    if len(lengths) != 1:
        raise _unequal_rows(path, lengths)
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(len(column), lengths[0]).astype(np.float32, copy=False)


def _refuse_type(kind: "pa.DataType", what: str, name: str) -> None:
    from pyarrow import types

    if name == "logits":
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        numbers = (types.is_floating, types.is_integer, types.is_decimal)
        if not lists or not any(is_one(kind.value_type) for is_one in numbers):
            raise ValueError(f"{what} must be lists of numbers, found {kind}")
    elif name in EXPECTED and types.is_nested(kind):
        raise ValueError(f"{what} must be {EXPECTED[name]}, found {kind}")


def _refuse_empty(column: "pa.ChunkedArray | pa.Array", what: str, *, begin: int = 0) -> None:
    if column.null_count:
        row = begin + column.is_null().to_pylist().index(True)
        raise ValueError(f"{what} is empty in row {row}: fill it in or drop the row")


def _labels(column: "pa.ChunkedArray", path: str | Path) -> Int64[np.ndarray, " row"]:
    import pyarrow as pa

    try:
        return column.cast(pa.int64()).to_numpy()  # raises for fractions
    except (pa.ArrowException, NotImplementedError) as error:
        raise ValueError(f"label of {path} must be whole numbers, found: {error}") from error


def _rows(column: "pa.ChunkedArray", path: str | Path) -> dict[str, Rows]:
    """The rows of each part."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = set(column.unique().to_pylist())
    unknown_parts, missing_parts = sorted(parts - set(PARTS)), sorted(set(PARTS) - parts)
    if unknown_parts or missing_parts:
        raise ValueError(
            f"{path} must hold the parts {PARTS}: missing {missing_parts}, unknown {unknown_parts}"
        )
    names = column.cast(pa.string())
    equal = pc.equal  # pyright: ignore[reportAttributeAccessIssue]  (made at import)
    return {part: np.flatnonzero(equal(names, part).to_numpy()) for part in PARTS}

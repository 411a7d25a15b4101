"""Evidence as a parquet file: the columns `part`, `id`, `label` and `logits`, one row per example.

`part` is forget, retain, calibration or test; `id` a position or an id; `label` the true class; `logits` a
list of float32, one number per class. Files of this form from other programs can be audited as well.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Shaped

from unweave.audits.classifier.evidence import Evidence
from unweave.record.files import draft
from unweave.split import PARTS

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("part", "id", "label", "logits")
EXPECTED = {"part": "names", "id": "names or positions"}
CLASSES_KEY = b"unweave.forgotten_classes"

GROUP, MOST_ROWS = 2**26, 2**20
"""The most bytes of logits, and the most rows, of a group of rows, which is read at once."""

Rows = Shaped[np.ndarray, " row"]
Choose = Callable[[Rows, Rows], Bool[np.ndarray, " row"]]
"""Chooses rows by their parts and ids."""


def save(evidence: Evidence, path: str | Path) -> None:
    """Writes one file, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = list(evidence.logits)
    logits = np.concatenate([evidence.logits[part] for part in parts]).astype(np.float32, copy=False)
    offsets = np.arange(0, logits.size + 1, logits.shape[1], dtype=np.int32)
    columns = {
        "part": pa.array(np.repeat(parts, [len(evidence.labels[part]) for part in parts])),
        "id": pa.array(np.concatenate([evidence.ids[part] for part in parts])),
        "label": pa.array(np.concatenate([evidence.labels[part] for part in parts])),
        "logits": pa.ListArray.from_arrays(pa.array(offsets), pa.array(logits.ravel())),
    }
    classes = ",".join(str(label) for label in evidence.forgotten_classes)
    table = pa.table(columns).replace_schema_metadata({CLASSES_KEY: classes.encode()})
    with draft(Path(path)) as draft_path:
        pq.write_table(table, draft_path, row_group_size=min(MOST_ROWS, max(1, GROUP // logits[0].nbytes)))
        os.replace(draft_path, path)


def load(path: str | Path, *, forgotten_classes: tuple[int, ...] | None = None) -> Evidence:
    """Reads evidence written by `save` or by any other program.

    Args:
        path: The file.
        forgotten_classes: Classes forgotten whole; None takes those named in the file, if any.

    Raises:
        ValueError: If there is no such file, it is no parquet, a column or part is missing, a cell is empty,
            a column has another type, rows have different lengths, logits are NaN, labels are out of range or
            not whole, or an id occurs twice.
    """
    return _of_table(_table(path), path, forgotten_classes)


def load_unseen(path: str | Path, forget: Shaped[np.ndarray, " id"] | None = None) -> Evidence | None:
    """Reads what evidence says of some forget examples beside unseen ones, in little memory.

    Of the other parts it has single examples, because evidence has every part.

    Args:
        path: The file.
        forget: The ids of the forget examples to read; all if None.

    Returns:
        The evidence; None if it is about none of these examples.
    """

    def choose(parts: Rows, ids: Rows) -> Bool[np.ndarray, " row"]:
        wanted = parts == "forget"
        if forget is not None:
            wanted &= np.isin(ids, forget)
        _, first = np.unique(parts, return_index=True)
        single = np.isin(np.arange(len(parts)), first) & np.isin(parts, ("retain", "test"))
        return wanted | (parts == "calibration") | single

    table = _table(path, choose)
    return _of_table(table, path, None) if "forget" in table["part"].to_pylist() else None


def _of_table(table: "pa.Table", path: str | Path, forgotten_classes: tuple[int, ...] | None) -> Evidence:
    if forgotten_classes is None:
        classes = (table.schema.metadata or {}).get(CLASSES_KEY, b"").decode()
        forgotten_classes = tuple(int(label) for label in classes.split(",") if label)
    columns = {name: table[name].to_numpy() for name in COLUMNS if name != "label"}
    return _evidence({**columns, "label": _labels(table, path)}, str(path), forgotten_classes)


def _table(path: str | Path, choose: Choose | None = None) -> "pa.Table":
    """Reads rows of a file and checks that every column exists, is full and has a usable type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise ValueError(f"expected evidence at {path}, found no such file")
    try:
        table = pq.read_table(path) if choose is None else _chosen_rows(path, choose)
        table.validate(full=True)  # the text of a damaged file may not decode
    except (pa.ArrowException, OSError) as error:  # a page that can't be decompressed raises an OSError
        raise ValueError(f"expected a parquet file at {path}, found: {error}") from error
    if any(table.column_names.count(name) != 1 for name in COLUMNS):
        raise ValueError(f"{path} must have the columns {COLUMNS}, found {tuple(table.column_names)}")
    for name in COLUMNS:
        _refuse_unusable(table[name], f"{name} of {path}", name)
    return table


def _chosen_rows(path: str | Path, choose: Choose) -> "pa.Table":
    """The chosen rows of a file, of which one group of rows is in memory at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        tables = [file.schema_arrow.empty_table()]
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, columns=["part", "id"])
            rows = np.flatnonzero(choose(keys["part"].to_numpy(), keys["id"].to_numpy()))
            if len(rows):
                tables.append(file.read_row_group(group).take(rows))
    return pa.concat_tables(tables)


def _refuse_unusable(column: "pa.ChunkedArray", what: str, name: str) -> None:
    from pyarrow import types

    if column.null_count:
        row = np.flatnonzero(column.is_null().to_numpy())[0]
        raise ValueError(f"{what} is empty in row {row}: fill it in or drop the row")
    kind = column.type
    if name == "logits":
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        numbers = (types.is_floating, types.is_integer, types.is_decimal)
        if not lists or not any(is_one(kind.value_type) for is_one in numbers):
            raise ValueError(f"{what} must be lists of numbers, found {kind}")
    elif name in EXPECTED and types.is_nested(kind):
        raise ValueError(f"{what} must be {EXPECTED[name]}, found {kind}")


def _labels(table: "pa.Table", path: str | Path) -> Shaped[np.ndarray, " row"]:
    import pyarrow as pa

    try:
        return table["label"].cast(pa.int64()).to_numpy()  # raises for fractions
    except (pa.ArrowException, NotImplementedError) as error:
        raise ValueError(f"label of {path} must be whole numbers, found: {error}") from error


def _evidence(
    columns: Mapping[str, Shaped[np.ndarray, " row"]], path: str, forgotten_classes: tuple[int, ...]
) -> Evidence:
    ids, part = columns["id"], columns["part"]
    widths = {len(row) for row in columns["logits"]}
    if len(widths) != 1:
        raise ValueError(f"expected one logit per class in every row of {path}, found {sorted(widths)}")
    logits = np.stack(columns["logits"].tolist()).astype(np.float32)
    if not np.isfinite(logits).all():
        first = ids[~np.isfinite(logits).all(axis=1)][0]
        raise ValueError(f"logits contain NaN or infinity in {path}, first at id {first}: score it again")
    unknown, absent = sorted(set(part) - set(PARTS)), sorted(set(PARTS) - set(part))
    if unknown or absent:
        raise ValueError(f"{path} must hold the parts {PARTS}: missing {absent}, unknown {unknown}")
    rows = {name: np.flatnonzero(part == name) for name in PARTS}
    for name, here in rows.items():
        if len(np.unique(ids[here])) != len(here):
            raise ValueError(f"part {name!r} of {path} names an id twice")
    return Evidence(
        logits={name: logits[here] for name, here in rows.items()},
        labels={name: columns["label"][here].astype(np.int64) for name, here in rows.items()},
        ids={name: ids[here] for name, here in rows.items()},
        forgotten_classes=forgotten_classes,
    )

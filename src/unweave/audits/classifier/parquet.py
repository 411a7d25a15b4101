"""Evidence as a parquet file: the columns `part`, `id`, `label` and `logits`, one row per example.

`part` is forget, retain, calibration or test; `id` a position or an id; `label` the true class; `logits` a
list of float32, one number per class. Files of this form from other programs can be audited as well.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Shaped

from unweave.audits.classifier.columns import (
    CLASSES_KEY,
    Keys,
    Rows,
    open_parquet,
    read_keys,
    refuse_absent,
)
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits_in_file import (
    LogitsInFile,
    check_rows,
    read_rows,
    stamp,
    without_gaps,
)
from unweave.record.files import draft

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

GROUP, MOST_ROWS = 2**26, 2**20
"""The most bytes of logits, and the most rows, of a group of rows, which is written at once."""


def save(evidence: Evidence, path: str | Path) -> None:
    """Writes one file, atomically; one group of rows is copied at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sum(map(len, evidence.labels.values()))
    step = min(MOST_ROWS, max(1, GROUP // (4 * evidence.n_classes)))
    ids, kind = list(evidence.ids.values()), None
    if any(each.dtype == object for each in ids):  # each object has a type, and the column one for all
        kind = pa.array(_cut(ids, slice(0, rows))).type
    groups = (_group(evidence, slice(begin, begin + step), kind) for begin in range(0, rows, step))
    first_group = next(groups)
    with draft(Path(path)) as draft_path:
        with pq.ParquetWriter(draft_path, first_group.schema) as file:
            for group in chain([first_group], groups):
                file.write_table(group)
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
    with open_parquet(path) as file:
        keys = read_keys(file, path)
        if forgotten_classes is None:
            forgotten_classes = keys.forgotten_classes
        return _read(file, keys, keys.rows, forgotten_classes, path)


def open_evidence(path: str | Path, *, like: Evidence | None = None) -> Evidence:
    """Checks a file as `load` does, and leaves its logits there: a part is read on use.

    Args:
        path: The file, which must not change while the evidence is used.
        like: Evidence whose labels and ids are shared where they are equal, so that many models take the
            memory of one.

    Raises:
        ValueError: As `load` does.
    """
    refuse_absent(path)
    place = Path(path).resolve()
    file_stamp = stamp(place)  # before it is opened: one that is replaced meanwhile differs from it
    with open_parquet(path) as file:
        keys = read_keys(file, path)
        width, bad_row = check_rows(file, np.arange(len(keys.ids)), path)
    if bad_row is not None:
        raise infinite_row(path, keys, bad_row)
    rows = {part: without_gaps(positions) for part, positions in keys.rows.items()}
    labels, ids = (
        {part: _take(each, rows[part], None if reference is None else reference[part]) for part in rows}
        for each, reference in (
            (keys.labels, None if like is None else like.labels),
            (keys.ids, None if like is None else like.ids),
        )
    )
    return Evidence(LogitsInFile(place, rows, width, file_stamp), labels, ids, keys.forgotten_classes)


def load_unseen(path: str | Path, forget: Shaped[np.ndarray, " id"] | None = None) -> Evidence | None:
    """Reads what evidence says of some forget examples beside unseen ones, in little memory.

    Of the other parts it has single examples, because evidence has every part.

    Args:
        path: The file.
        forget: The ids of the forget examples to read; all if None.

    Returns:
        The evidence; None if it is about none of these examples.
    """
    with open_parquet(path) as file:
        keys = read_keys(file, path)
        forget_rows = keys.rows["forget"]
        if forget is not None:
            forget_rows = forget_rows[np.isin(keys.ids[forget_rows], forget)]
        first_rows = {part: keys.rows[part][:1] for part in ("retain", "test")}
        rows = {"forget": forget_rows, "calibration": keys.rows["calibration"], **first_rows}
        return _read(file, keys, rows, keys.forgotten_classes, path) if len(forget_rows) else None


def _take(array: np.ndarray, rows: Rows | range, reference: np.ndarray | None) -> np.ndarray:
    """Some rows of a column, as the array `reference` if they are equal to it."""
    values = array[rows.start : rows.stop].copy() if isinstance(rows, range) else array[rows]
    return values if reference is None or not np.array_equal(values, reference) else reference


def _group(evidence: Evidence, rows: slice, kind: "pa.DataType | None") -> "pa.Table":
    """Some rows of the file, in which part follows part."""
    import pyarrow as pa

    parts = list(evidence.labels)
    names = [np.broadcast_to(np.array(part), len(evidence.labels[part])) for part in parts]
    logits = _cut_logits(evidence, rows).astype(np.float32, copy=False)
    offsets = np.arange(0, logits.size + 1, logits.shape[1], dtype=np.int32)
    columns = {
        "part": pa.array(_cut(names, rows)),
        "id": pa.array(_cut([evidence.ids[part] for part in parts], rows), kind),
        "label": pa.array(_cut([evidence.labels[part] for part in parts], rows)),
        "logits": pa.ListArray.from_arrays(pa.array(offsets), pa.array(logits.ravel())),
    }
    classes = ",".join(str(label) for label in evidence.forgotten_classes)
    return pa.table(columns).replace_schema_metadata({CLASSES_KEY: classes.encode()})


def _cut(arrays: Sequence[np.ndarray], rows: slice) -> np.ndarray:
    """Some rows of arrays that follow each other; arrays without such rows still decide the type."""
    begins = np.cumsum([0, *(len(array) for array in arrays)])
    starts, stops = (np.clip(end - begins[:-1], 0, None) for end in (rows.start, rows.stop))
    return np.concatenate([array[i:j] for array, i, j in zip(arrays, starts, stops, strict=True)])


def _cut_logits(evidence: Evidence, rows: slice) -> np.ndarray:
    """The logits of some rows of the file; parts without such rows are not read."""
    pieces, begin = [], 0
    for part, labels in evidence.labels.items():
        start, stop = (int(np.clip(end - begin, 0, len(labels))) for end in (rows.start, rows.stop))
        if start < stop:
            pieces.append(evidence.logits[part][start:stop])
        begin += len(labels)
    return np.concatenate(pieces)


def _read(
    file: "ParquetFile",
    keys: Keys,
    rows: Mapping[str, Rows],
    forgotten_classes: tuple[int, ...],
    path: str | Path,
) -> Evidence:
    logits, finite = read_rows(file, rows, path)
    if not finite:
        _refuse_infinite(logits, rows, keys, path)
    labels, ids = (
        {part: each[positions] for part, positions in rows.items()} for each in (keys.labels, keys.ids)
    )
    return Evidence(logits, labels, ids, forgotten_classes)


def _refuse_infinite(
    logits: Mapping[str, Float32[np.ndarray, "_ _"]], rows: Mapping[str, Rows], keys: Keys, path: str | Path
) -> None:
    bad_rows = [positions[~np.isfinite(logits[part]).all(axis=1)] for part, positions in rows.items()]
    if any(map(len, bad_rows)):  # a piece may also hold rows that are not wanted
        raise infinite_row(path, keys, int(np.concatenate(bad_rows).min()))


def infinite_row(path: str | Path, keys: Keys, row: int) -> ValueError:
    """The error of a row with NaN or infinity."""
    name = keys.ids[row]
    return ValueError(f"logits contain NaN or infinity in {path}, first at id {name}: score it again")

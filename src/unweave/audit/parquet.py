"""Evidence as a parquet file: the columns `part`, `id`, `label` and `logits`, one row per example.

`part` is forget, retain, calibration or test; `id` a position or a name; `label` the true class; `logits` a
list of float32, one number per class. A file of this shape from any other program can be audited as well.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from unweave.audit.evidence import PARTS, Evidence
from unweave.files import draft

COLUMNS = ("part", "id", "label", "logits")
CLASSES_KEY = b"unweave.forgotten_classes"


def save(evidence: Evidence, path: str | Path) -> None:
    """Writes one file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = list(evidence.logits)
    logits = np.concatenate([evidence.logits[part] for part in parts]).astype(np.float32)
    offsets = np.arange(0, logits.size + 1, logits.shape[1], dtype=np.int32)
    columns = {
        "part": pa.array(np.repeat(parts, [len(evidence.labels[part]) for part in parts])),
        "id": pa.array(np.concatenate([evidence.ids[part] for part in parts])),
        "label": pa.array(np.concatenate([evidence.labels[part] for part in parts])),
        "logits": pa.ListArray.from_arrays(pa.array(offsets), pa.array(logits.ravel())),
    }
    classes = ",".join(str(label) for label in evidence.forgotten_classes)
    table = pa.table(columns).replace_schema_metadata({CLASSES_KEY: classes.encode()})
    with draft(Path(path)) as beside:
        pq.write_table(table, beside)
        os.replace(beside, path)


def load(path: str | Path, *, forgotten_classes: tuple[int, ...] | None = None) -> Evidence:
    """Reads evidence written by `save` or by any other program.

    Args:
        path: The file.
        forgotten_classes: Classes forgotten whole; None takes what the file says, if anything.

    Raises:
        ValueError: No such file, no parquet, a column or part missing, rows of different lengths, NaN, labels
            out of range, or an id named twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise ValueError(f"expected evidence at {path}, found no such file")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"expected a parquet file at {path}, found: {error}") from error
    if not set(COLUMNS) <= set(table.column_names):
        raise ValueError(f"{path} must have the columns {COLUMNS}, found {tuple(table.column_names)}")
    if forgotten_classes is None:
        said = (table.schema.metadata or {}).get(CLASSES_KEY, b"").decode()
        forgotten_classes = tuple(int(label) for label in said.split(",") if label)
    return _evidence({name: table[name].to_numpy() for name in COLUMNS}, str(path), forgotten_classes)


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
    unknown, missing = sorted(set(part) - set(PARTS)), sorted(set(PARTS) - set(part))
    if unknown or missing:
        raise ValueError(f"{path} must hold the parts {PARTS}: missing {missing}, unknown {unknown}")
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

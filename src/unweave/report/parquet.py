"""Records as Parquet: long tables of unrounded figures, with null for unmeasured ones."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unweave.record.files import draft
from unweave.report.rows import rows

Kind = type[str] | type[bool] | type[int] | type[float]

WORDS = ("stage", "method", "verdict", "reason", "failed", "metric", "direction")
FIGURES = ("n", "value", "low", "high", "reference", "null_low", "null_high", "difference", "margin")
COST_COLUMNS = ("mean_gap", "p_holm", "mean_rank", "seconds", "cost", "peak_mib", "gradient_evaluations")
COLUMNS: Mapping[str, Kind] = {
    **dict.fromkeys(WORDS, str),
    **dict.fromkeys((*FIGURES, *COST_COLUMNS), float),
    "failed": bool,
    "n": int,
}


def parquet(record: Mapping[str, Any], path: str | Path) -> Path:
    """Write a row per stage, method and metric.

    A method without any score has one row with a null metric, so that failures are counted too.
    """
    lines = [line for name, stage in record["stages"].items() for line in long(name, stage)]
    return write(lines, COLUMNS, path)


def write(lines: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind], path: str | Path) -> Path:
    """Writes one row per line, atomically; missing values are null."""
    import pyarrow
    from pyarrow import parquet as file

    kinds = {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with draft(Path(path)) as draft_path:
        file.write_table(pyarrow.Table.from_pylist(list(lines), schema=schema), draft_path)
        os.replace(draft_path, path)
    return Path(path)


def long(name: str, stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dictionary per method and metric of a stage: the columns of `parquet`."""
    margins = stage["margins"] or {}
    lines = []
    for row in rows(stage):
        common = {
            "stage": name,
            "method": row.name,
            "verdict": row.status,
            "reason": row.reason,
            "failed": row.status == "FAILED",
            "mean_gap": row.gap.mean,
            "p_holm": row.p,
            "mean_rank": row.rank,
            "seconds": row.seconds,
            "cost": row.cost,
            "peak_mib": row.peak_mib,
            "gradient_evaluations": row.gradient_evaluations,
        }
        for metric, cell in row.scores.items():
            low, high = cell.band or (None, None)
            figures = {
                "metric": metric,
                "direction": cell.direction,
                "n": cell.n,
                "value": cell.value,
                "low": cell.low,
                "high": cell.high,
                "reference": cell.reference,
                "null_low": low,
                "null_high": high,
                "difference": cell.gap,
                "margin": margins.get(metric),
            }
            lines.append(common | figures)
        lines += [] if row.scores else [common]
    return lines

"""Checks a record against the files next to it, because a forger of figures can also forge their digest.

- For an audit of a classifier, `evidence.parquet` holds the model's answers: UA, RA, TA and AUC are
recomputed. MIA, whose attack takes as long as all others together, is not, nor are metrics that need the
retrained models. - For a benchmark, `cells` holds the measurements of every model: every figure must be their
mean. - For any record, a PASS must have every figure within its margin, and a FAIL one beyond.

Missing files are not checked. A figure that passes may still be forged together with its evidence.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from unweave.audits.classifier import parquet
from unweave.audits.metrics import METRICS
from unweave.bench.cell import REFERENCE
from unweave.families import metrics_for
from unweave.record.digest import rerun_command
from unweave.record.files import read_object
from unweave.report.numbers import heading

Stage = Mapping[str, Any]
Values = Mapping[str, float]

AUDIT, EVIDENCE = "audit", "evidence.parquet"
ANEW = ("ua", "ra", "ta", "auc")
"""The metrics that are recomputed from evidence."""
TOLERANCE = 1e-6
"""Tolerance in a metric's unit: sums of floats on another machine may differ by this."""
GIVEN = "its cells beside it give"


def refuse_disproved(record: Mapping[str, Any], path: Path) -> None:
    """Raises a ValueError that names the first figure that contradicts the evidence or the record itself.

    Args:
        record: The record from `unweave.record.record.load`.
        path: Its file or folder.
    """
    folder = path if path.is_dir() else path.parent
    for name, stage in record["stages"].items():
        for found in contradictions(name, stage, folder):
            raise ValueError(
                f"{path}: {found}: the record or a file next to it was changed after it was "
                f"written: make it again with {rerun_command(record)}"
            )


def contradictions(name: str, stage: Stage, folder: Path) -> Iterator[str]:
    """Yields a sentence for every contradicted figure or verdict of a stage."""
    yield from check_verdicts(stage)
    if name == AUDIT and (folder / EVIDENCE).is_file():
        yield from check_evidence(stage, folder / EVIDENCE)
    if (folder / "cells" / name).is_dir():
        yield from check_cells(stage, folder / "cells" / name)


def check_verdicts(stage: Stage) -> Iterator[str]:
    """Yields verdicts that contradict the margins."""
    for name, row in stage["methods"].items():
        known = [each["value"] is not None for each in row["scores"].values()]
        if row["failed"] is not None or not all(known):
            continue
        beyond = list(check_margins(row["scores"], stage["margins"] or {}))
        if row["verdict"] == "PASS" and (beyond or not stage["margins"]):
            yield f"{name} has the verdict PASS, {beyond[0] if beyond else 'and there are no margins'}"
        if row["verdict"] == "FAIL" and not beyond:
            yield f"{name} has the verdict FAIL, and no figure is beyond its margin"


def check_margins(scores: Mapping[str, Any], margins: Mapping[str, float | None]) -> Iterator[str]:
    """Yields a clause for every figure beyond its margin on a side that would be a fault."""
    metrics = metrics_for(scores)
    for name, margin in margins.items():
        if name not in scores or name not in metrics or margin is None:
            continue
        metric = metrics[name]
        distance = scores[name]["value"] if metric.needs_reference else scores[name]["gap"]
        above = metric.above is not None and distance is not None and distance >= margin
        below = metric.below is not None and distance is not None and distance <= -margin
        if above or below:
            yield f"and {metric.title} is {distance:g} off, at a margin of {margin:g}"


def check_evidence(stage: Stage, path: Path) -> Iterator[str]:
    """Yields figures of the audited model that contradict its answers."""
    rows = [each for each in stage["methods"].items() if each[0] != "original"]
    if len(rows) != 1:
        return
    ((name, row),) = rows
    said = {each: row["scores"][each]["value"] for each in ANEW if each in row["scores"]}
    known = {each: value for each, value in said.items() if value is not None}
    if known:
        evidence = parquet.load(path)
        takes = {each: METRICS[each].alone for each in known}
        found = {each: take(evidence) for each, take in takes.items() if take is not None}
        yield from compare_figures(name, known, found, f"{path.name} beside it gives")


def check_cells(stage: Stage, folder: Path) -> Iterator[str]:
    """Yields figures that contradict the cells, per seed and as means."""
    rows = {name: row for name, row in stage["methods"].items() if row["failed"] is None}
    for name, row in rows.items():
        cells = read_values(folder, stage["seeds"], name)
        for figure, values in row.get("per_seed", {}).items():
            for value, cell in zip(values, cells, strict=False):
                yield from compare_figures(name, {figure: value}, cell, GIVEN)
        yield from check_means(name, row["scores"], cells, len(stage["seeds"]))
    retrained = read_values(folder, stage["seeds"], REFERENCE)
    yield from check_means("Retrain", stage["reference"]["scores"], retrained, len(stage["seeds"]))


def check_means(name: str, scores: Mapping[str, Any], cells: Sequence[Values], seeds: int) -> Iterator[str]:
    """Yields scores that differ from the mean of the cells, if every seed has a cell."""
    if len(cells) == seeds and cells:
        shared = [each for each in scores if all(each in cell for cell in cells)]
        means = {each: mean(cell[each] for cell in cells) for each in shared}
        yield from compare_figures(name, {each: scores[each]["value"] for each in shared}, means, GIVEN)


def read_values(folder: Path, seeds: Sequence[int], name: str) -> list[Values]:
    """Reads the measurements of a method's existing cells, in the order of the seeds."""
    places = [folder / str(seed) / f"{name}.values.json" for seed in seeds]
    if not all(place.is_file() for place in places):
        return []
    return [read_object(place).get("values", {}) for place in places]


def compare_figures(name: str, said: Mapping[str, float | None], found: Values, where: str) -> Iterator[str]:
    """Yields a sentence for every figure that differs from the recomputed one."""
    for metric in (each for each in said if each in found):
        value, other = said[metric], found[metric]
        if value is None:
            same = not math.isfinite(other)
        else:
            same = math.isclose(value, other, rel_tol=0, abs_tol=TOLERANCE)
        if not same:
            yield f"{name} has {heading(metric)} {value}, but {where} {other:g}"

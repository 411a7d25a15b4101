"""Checks a record against the files next to it, because a forger of figures can also forge their digest.

- For an audit of a classifier, `evidence.parquet` holds the model's answers: UA, RA, TA and AUC are
  recomputed. MIA, whose attack takes as long as all others together, is not, nor are metrics that need the
  retrained models.
- For a benchmark, `cells` holds the measurements of every model: every figure must be their mean, and so
  must the gradient evaluations. Times are not compared.
- For any record, a PASS needs ten seeds and every figure within its margin, and a FAIL a figure beyond; a
  reason must begin with its verdict; a method's figures must be those of its seeds; and a frontier must say
  what its stages say (`verify_frontier`).

Missing files are not checked. A figure that passes may still be forged together with its evidence.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from unweave.audits.classifier import parquet
from unweave.audits.classifier.metrics import METRICS
from unweave.audits.metrics import Metric, mean_gap
from unweave.audits.verdict import SEEDS
from unweave.bench.cache import file_name
from unweave.bench.cell import REFERENCE, UNBUDGETED
from unweave.bench.compare_figures import compare_figures
from unweave.bench.verify_frontier import check_frontier
from unweave.families import family_of_stage
from unweave.record.digest import rerun_command
from unweave.record.files import read_object

Stage = Mapping[str, Any]
Values = Mapping[str, float]

AUDIT, EVIDENCE = "audit", "evidence.parquet"
RECOMPUTED = ("ua", "ra", "ta", "auc")
"""The metrics that are recomputed from evidence."""
FROM_CELLS = "its cells next to it give"
FORGED = (ArithmeticError, AttributeError, LookupError, TypeError)
"""What recomputing figures raises at values that the schema allows and no run writes."""


def refuse_disproved(record: Mapping[str, Any], path: Path) -> None:
    """Raises a ValueError that names the first figure that contradicts the evidence or the record itself.

    Args:
        record: The record from `unweave.record.record.load`.
        path: Its file or folder.
    """
    folder = path if path.is_dir() else path.parent
    try:
        contradiction = next(contradictions(record, folder), None)
    except FORGED as error:
        contradiction = f"a figure is missing or of another kind ({type(error).__name__}: {error})"
    if contradiction is not None:
        raise ValueError(
            f"{path}: {contradiction}: the record or a file next to it was changed after it was "
            f"written: make it again with {rerun_command(record)}"
        )


def contradictions(record: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yields a sentence for every contradicted figure or verdict of a record."""
    for name, stage in record["stages"].items():
        if name == AUDIT and (folder / EVIDENCE).is_file():
            yield from check_evidence(stage, folder / EVIDENCE)
        if (folder / "cells").is_dir():
            yield from check_cells(name, stage, folder / "cells")
        yield from check_verdicts(stage)
    for name, content in record.get("frontier", {}).items():
        yield from check_frontier(name, content, record["stages"])


def check_verdicts(stage: Stage) -> Iterator[str]:
    """Yields verdicts that contradict the margins or their own reason."""
    yield from check_seeds("Retrain", stage["reference"])
    for name, row in stage["methods"].items():
        if row["failed"] is None and not row["reason"].startswith(row["verdict"]):
            yield f"{name} has the verdict {row['verdict']}, and its reason says: {row['reason']}"
        if row["verdict"] == "PASS" and stage["recipe"] and len(stage["seeds"]) < SEEDS:
            yield f"{name} has the verdict PASS over {len(stage['seeds'])} seeds, and {SEEDS} are needed"
        yield from check_seeds(name, row)
        has_value = [each["value"] is not None for each in row["scores"].values()]
        if row["failed"] is not None or not all(has_value):
            continue
        faults = list(check_margins(row["scores"], stage["margins"] or {}, family_of_stage(stage).metrics))
        if row["verdict"] == "PASS" and (faults or not stage["margins"]):
            yield f"{name} has the verdict PASS, {faults[0] if faults else 'and there are no margins'}"
        if row["verdict"] == "FAIL" and not faults:
            yield f"{name} has the verdict FAIL, and no figure is beyond its margin"


def check_seeds(name: str, row: Mapping[str, Any]) -> Iterator[str]:
    """Yields figures of a method, or of the retrained models, that contradict those of its seeds."""
    seeds = {key: values for key, values in row.get("per_seed", {}).items() if values}
    figures = {key: each["value"] for key, each in row["scores"].items() if key in seeds}
    means = {key: mean(seeds[key]) for key in figures}
    if row.get("gap") is not None and "gap" in seeds:
        figures, means = figures | {"gap": row["gap"]["mean"]}, means | {"gap": mean(seeds["gap"])}
    if "cost" in seeds:
        figures, means = figures | {"cost": row["cost"]}, means | {"cost": median(seeds["cost"])}
    yield from compare_figures(name, figures, means, "its seeds give")


def check_margins(
    scores: Mapping[str, Any], margins: Mapping[str, float | None], metrics: Mapping[str, Metric]
) -> Iterator[str]:
    """Yields a clause for every figure beyond its margin on a side that would be a fault."""
    for name, margin in margins.items():
        if name not in scores or name not in metrics or margin is None:
            continue
        metric = metrics[name]
        distance = scores[name]["value"] if metric.needs_reference else scores[name]["gap"]
        is_above = metric.above is not None and distance is not None and distance >= margin
        is_below = metric.below is not None and distance is not None and distance <= -margin
        if is_above or is_below:
            yield f"and {metric.title} is {distance:g} off, at a margin of {margin:g}"


def check_evidence(stage: Stage, path: Path) -> Iterator[str]:
    """Yields figures of the audited model that contradict its answers."""
    rows = [each for each in stage["methods"].items() if each[0] != "original"]
    if len(rows) != 1:
        return
    ((name, row),) = rows
    figures = {each: row["scores"][each]["value"] for each in RECOMPUTED if each in row["scores"]}
    known_figures = {each: value for each, value in figures.items() if value is not None}
    if known_figures:
        evidence = parquet.load(path)
        functions = {each: METRICS[each].of_one for each in known_figures}
        values = {each: function(evidence) for each, function in functions.items() if function is not None}
        yield from compare_figures(name, known_figures, values, f"{path.name} next to it gives")


def check_cells(name: str, stage: Stage, cells: Path) -> Iterator[str]:
    """Yields figures that contradict the cells, per seed and as means."""
    retrained = read_values(cells, name, stage, REFERENCE)
    yield from check_means("Retrain", stage["reference"]["scores"], retrained, len(stage["seeds"]))
    yield from check_cell_figures("Retrain", stage["reference"], retrained)
    rows = {method: row for method, row in stage["methods"].items() if row["failed"] is None}
    metrics = family_of_stage(stage).metrics
    for method, row in rows.items():
        values = read_values(cells, name, stage, method)
        if retrained:
            values = [
                cell | gap_of(cell, other, metrics) for cell, other in zip(values, retrained, strict=False)
            ]
        yield from check_cell_figures(method, row, values)
        means = (
            row["scores"] if row["gap"] is None else {**row["scores"], "gap": {"value": row["gap"]["mean"]}}
        )
        yield from check_means(method, means, values, len(stage["seeds"]))
        yield from check_gradients(method, row, read_cells(cells, name, stage, method, "json"))
    retrain_cells = read_cells(cells, name, stage, REFERENCE, "json")
    yield from check_gradients("Retrain", stage["reference"], retrain_cells)


def check_cell_figures(name: str, row: Mapping[str, Any], cells: Sequence[Values]) -> Iterator[str]:
    """Yields figures of single seeds that contradict their cells."""
    for seed, cell in enumerate(cells):
        figures = {figure: each[seed] for figure, each in row.get("per_seed", {}).items()}
        yield from compare_figures(name, figures, cell, FROM_CELLS)


def gap_of(cell: Values, reference: Values, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The mean gap of a cell; empty if a metric of it was not measured."""
    parts = [metric.id for metric in metrics.values() if metric.points]
    return {"gap": mean_gap(cell, reference, metrics)} if all(part in cell for part in parts) else {}


def check_means(name: str, scores: Mapping[str, Any], cells: Sequence[Values], seeds: int) -> Iterator[str]:
    """Yields scores that differ from the mean of the cells, if every seed has a cell."""
    if len(cells) == seeds and cells:
        names = [each for each in scores if all(each in cell for cell in cells)]
        means = {each: mean(cell[each] for cell in cells) for each in names}
        yield from compare_figures(name, {each: scores[each]["value"] for each in names}, means, FROM_CELLS)


def check_gradients(name: str, row: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the gradient evaluations of a method, if its cells have others; no clock is compared."""
    counts = [cell["gradient_evaluations"] for cell in cells if "gradient_evaluations" in cell]
    if counts and "gradient_evaluations" in row:
        figures = {"gradient_evaluations": row["gradient_evaluations"]}
        yield from compare_figures(name, figures, {"gradient_evaluations": mean(counts)}, FROM_CELLS)


def read_values(cells: Path, name: str, stage: Stage, method: str) -> list[dict[str, float]]:
    """Reads the measurements of a method's existing cells, in the order of the seeds."""
    return [each.get("values", {}) for each in read_cells(cells, name, stage, method, "values.json")]


def read_cells(cells: Path, name: str, stage: Stage, method: str, end: str) -> list[dict[str, Any]]:
    """Reads a file of each of a method's cells, in the order of the seeds; none unless all exist."""
    folder = cells / (stage["recipe"].get("name", name) if method in UNBUDGETED else name)
    places = [folder / str(seed) / f"{file_name(method)}.{end}" for seed in stage["seeds"]]
    return [read_object(place) for place in places] if all(place.is_file() for place in places) else []

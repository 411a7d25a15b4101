"""The rows of a stage, for every rendering of a record, in one order.

Retrain comes first, then the untouched original, then the methods from the smallest mean gap to the largest,
then methods without a finite gap, then those that failed. A number that is missing or not finite is None,
printed as a dash, and never ranked.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from unweave.families import family_of_stage, metric_named
from unweave.report.numbers import finite
from unweave.report.ranking import adjusted_p_values, rank_stages

Kind = Literal["reference", "original", "method"]
Status = Literal["reference", "PASS", "FAIL", "INCONCLUSIVE", "FAILED"]


PEAK_MEMORY = (
    "Peak MiB: the most memory in use at once, in 2^20 bytes: of the GPU, or of the whole process on a CPU."
)
"""The legend of a column."""


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Args:
        value: Mean over `n` seeds, in the metric's unit.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        n: number of seeds.
        reference: mean of the retrained models.
        band: The range of retrained models.
        gap: mean paired difference from the retrained models.
        direction: "match", "lower" or "higher": the direction of a good value.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reference: float | None
    band: tuple[float | None, float | None] | None
    gap: float | None
    direction: str


@dataclass(frozen=True)
class Gap:
    """Mean distance from retrained models, in percentage points; for a classifier over UA, RA, TA and MIA.

    Args:
        mean: over seeds, of the gap of each seed.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        of_means: the gap of the means over seeds, as papers report it.
        parts: Its parts, by metric id.
    """

    mean: float | None
    low: float | None
    high: float | None
    of_means: float | None
    parts: Mapping[str, float | None]


@dataclass(frozen=True)
class Row:
    """One method, or one of the two references.

    Args:
        name: the method's name in the record.
        kind: the retrained reference, the untouched original, or a method.
        status: the verdict; "FAILED" if the method did not run to its end.
        reason: one sentence for the status.
        scores: by metric id.
        gap: distance from the retrained models.
        seconds: wall-clock time of one run.
        cost: relative to one retrain.
        peak_mib: peak memory, MiB.
        gradient_evaluations: forward and backward passes over one batch.
        settings: the `repr` that rebuilds the method.
        best: Whether this is the method closest to Retrain; never with one seed.
        p: The p of the paired test of its gap against LUR, with Holm's correction.
        rank: Mean rank by the gap over seeds, 1 for the smallest; failed methods share the last.
    """

    name: str
    kind: Kind
    status: Status
    reason: str
    scores: Mapping[str, Cell]
    gap: Gap
    seconds: float | None
    cost: float | None
    peak_mib: float | None
    gradient_evaluations: float | None
    settings: str
    best: bool = False
    p: float | None = None
    rank: float | None = None


def rows(stage: Mapping[str, Any]) -> list[Row]:
    """The rows of one stage of a record, in the order of this file's first lines."""
    p, ranking = adjusted_p_values(stage), rank_stages([stage])
    ranks = {} if ranking is None else ranking.ranks
    all_rows = [_row(name, method) for name, method in stage["methods"].items()]
    methods = [replace(row, p=p.get(row.name), rank=ranks.get(row.name)) for row in all_rows]
    is_repeated = len(stage["seeds"]) > 1
    best_row = min(filter(_ranks, methods), key=_distance, default=None) if is_repeated else None
    marked_rows = [replace(row, best=row is best_row) for row in methods]
    reference = _reference(stage)
    # A record may list the reference a second time, as the method `retrain`; its own measurement stays a row.
    other_rows = [
        row for row in marked_rows if not (row.name == "retrain" and row.scores == reference.scores)
    ]
    return [*([reference] if reference.scores else []), *sorted(other_rows, key=_order)]


def headline(stage: Mapping[str, Any]) -> Row | None:
    """The row whose verdict opens a report: the record's headline, or the first that is no reference."""
    by_name = {row.name: row for row in rows(stage)}
    names = [stage["headline"]] if "headline" in stage else list(stage["methods"])
    candidates = [by_name[name] for name in names if name in by_name]
    return next((row for row in candidates if row.kind == "method"), candidates[0] if candidates else None)


def metric_ids(stage: Mapping[str, Any]) -> list[str]:
    """The metric ids of the stage's rows: the library's in its own order, then others."""
    tables = [stage["reference"]["scores"], *(method["scores"] for method in stage["methods"].values())]
    metrics = dict.fromkeys(metric for scores in tables for metric in scores)
    library = family_of_stage(stage).metrics
    return [metric for metric in library if metric in metrics] + [m for m in metrics if m not in library]


def gap_ids(stage: Mapping[str, Any]) -> list[str]:
    """The metric ids of the parts of the stage's mean gap; none if no row has one."""
    parts = [method["gap"]["parts"] for method in stage["methods"].values() if method["gap"] is not None]
    return list(parts[0]) if parts else []


def is_outside(metric: str, cell: Cell, margin: float | None) -> bool:
    """Whether the mean lies beyond the margin.

    For a metric that compares two models, the margin bounds its value; for any other, the absolute difference
    from the retrained models.
    """
    if (limit := finite(margin)) is None:
        return False
    entry = metric_named(metric)
    compares = entry is not None and entry.needs_reference
    distance = cell.value if compares else cell.gap
    return distance is not None and abs(distance) > limit


def _row(name: str, method: Mapping[str, Any]) -> Row:
    kinds: dict[str, Kind] = {"retrain": "reference", "original": "original"}
    return Row(
        name=name,
        kind=kinds.get(name, "method"),
        status="FAILED" if method["failed"] is not None else method["verdict"],
        # A judgement's reason begins with its verdict, which every rendering prints beside it.
        reason=method["failed"] or method["reason"].removeprefix(f"{method['verdict']}: "),
        scores={metric: _cell(score) for metric, score in method["scores"].items()},
        gap=_gap(method["gap"]),
        seconds=finite(method["seconds"]),
        cost=finite(method["cost"]),
        peak_mib=finite(method["peak_mib"]),
        gradient_evaluations=finite(method["gradient_evaluations"]),
        settings=method["repr"],
    )


def _reference(stage: Mapping[str, Any]) -> Row:
    """The retrained models' own row, with the time of the method `retrain`, or else of an audit."""
    reference = stage["reference"]
    scores = {metric: _cell(score) for metric, score in reference["scores"].items()}
    empty = Row("Retrain", "reference", "reference", "", scores, _gap(None), None, None, None, None, "")
    if "retrain" not in stage["methods"]:
        seconds, gradients = (finite(reference.get(key)) for key in ("seconds", "gradient_evaluations"))
        cost = None if seconds is None and gradients is None else 1.0
        return replace(empty, seconds=seconds, gradient_evaluations=gradients, cost=cost)
    row = _row("retrain", stage["methods"]["retrain"])
    return replace(row, name="Retrain", status="reference", reason="", scores=scores, gap=empty.gap, cost=1.0)


def _cell(score: Mapping[str, Any]) -> Cell:
    band: Sequence[float | None] | None = score["null_band"]
    numbers = ("value", "low", "high", "reference", "gap")
    value, low, high, reference, gap = (finite(score[key]) for key in numbers)
    pair = None if band is None else (finite(band[0]), finite(band[1]))
    return Cell(value, low, high, score["n"], reference, pair, gap, score["direction"])


def _gap(gap: Mapping[str, Any] | None) -> Gap:
    if gap is None:
        return Gap(None, None, None, None, {})
    mean, low, high, of_means = (finite(gap[key]) for key in ("mean", "low", "high", "of_means"))
    return Gap(mean, low, high, of_means, {name: finite(each) for name, each in gap["parts"].items()})


def _ranks(row: Row) -> bool:
    """Whether a method can be the closest: it ran, has a finite gap, and its verdict is not FAIL."""
    return row.kind == "method" and row.status in ("PASS", "INCONCLUSIVE") and row.gap.mean is not None


def _distance(row: Row) -> float:
    return math.inf if row.gap.mean is None else row.gap.mean


def _order(row: Row) -> tuple[int, bool, float]:
    return ("reference", "original", "method").index(row.kind), row.status == "FAILED", _distance(row)

"""Checks the frontier of a record against the stages of the same record, from which it is computed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unweave.bench.compare_figures import compare_figures, drop_unknown
from unweave.bench.frontier import curve, differences, frontier

Stage = Mapping[str, Any]


def check_frontier(name: str, found: Mapping[str, Any], stages: Mapping[str, Stage]) -> Iterator[str]:
    """Yields figures of a recipe's frontier, and costs of a PASS, that contradict its stages."""
    by_budget = {budget: stages.get(f"{name}@{budget}", stages.get(name)) for budget in found["budgets"]}
    present_stages = {budget: stage for budget, stage in by_budget.items() if stage is not None}
    for method, row in found["methods"].items():
        own = curve(method, present_stages)
        if len(own["points"]) != len(row["points"]) or own["cost_of_pass"] != row["cost_of_pass"]:
            said = "no PASS" if row["cost_of_pass"] is None else f"a PASS at {row['cost_of_pass']:g}"
            yield f"the frontier of {name} gives {method} {said}, and its stages do not"
            return
        for point, other in zip(row["points"], own["points"], strict=True):
            where = f"its stage at {point['budget']:g} gives"
            if point["verdict"] != other["verdict"]:
                yield f"{method} has the verdict {point['verdict']}, but {where} {other['verdict']}"
            known = drop_unknown(point_figures(other))
            yield from compare_figures(method, point_figures(point), known, where)
    own = frontier(present_stages)
    shared = {key: found[key] for key in ("floor", "margin", "original")}
    yield from compare_figures(name, shared, drop_unknown(own), "its stages give")
    yield from check_pairs(found["paired"], present_stages)


def point_figures(point: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a method at one budget."""
    gap, cost = point["gap"] or {}, {"cost": point["gradient_evaluations"], "seconds": point["seconds"]}
    return {"gap": gap.get("mean"), "gap low": gap.get("low"), "gap high": gap.get("high"), **cost}


def check_pairs(rows: Sequence[Mapping[str, Any]], stages: Mapping[float, Stage]) -> Iterator[str]:
    """Yields differences of two methods that contradict the gaps of their seeds."""
    for row in rows:
        name, budget = f"{row['first']} less {row['second']}", row["budget"]
        one = {each: stage for each, stage in stages.items() if each == budget}
        own = differences(row["first"], row["second"], one)
        if not own:
            yield f"{name} has a difference at {budget:g}, and its stages have none"
        for each in own:
            figures = [{key: side[key] for key in ("difference", "low", "high")} for side in (row, each)]
            known = drop_unknown(figures[1])
            yield from compare_figures(name, figures[0], known, f"its stage at {budget:g} gives")

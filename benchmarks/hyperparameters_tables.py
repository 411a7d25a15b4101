"""The statistics and tables of `hyperparameters.py`.

A point's value on a stage is the mean over its seeds. Differences are taken within a seed, with 95 % t
intervals over seeds; ratios are of geometric means.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

import numpy as np
from hyperparameters_forest import described
from scipy.stats import spearmanr

from unweave.audit.score import t_interval

Row = dict[str, Any]
Found = Mapping[str, Mapping[int, Row]]
"""The rows of each point by seed; a point by its JSON."""


def analysed(record: Row) -> Row:
    """The record with a summary of what it holds."""
    stages = list(record["stages"])
    whole = {stage: [row for row in record["runs"] if row["stage"] == stage] for stage in stages}
    filling = {stage: points_of(rows, {"random"}) for stage, rows in whole.items()}
    summary = {
        "alone": {stage: alone(rows, record["factors"]) for stage, rows in whole.items()},
        "random": {stage: forest_of(found) for stage, found in filling.items()},
        "best": {stage: best_of(found) for stage, found in filling.items()},
        "transfer": transfer(filling),
        "candidates": {name: judged(whole, filling, name) for name in record["candidates"]},
    }
    return {**record, "summary": summary}


def points_of(rows: Iterable[Row], designs: set[str], key: str = "point") -> Found:
    """The rows of some designs."""
    found: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row["design"] in designs:
            found[json.dumps(row[key], sort_keys=True)][row["seed"]] = row
    return found


def values_of(found: Found) -> dict[str, float]:
    """The value of each point that failed on no seed."""
    values = {point: [row["value"] for row in rows.values()] for point, rows in found.items()}
    return {point: float(np.mean(each)) for point, each in values.items() if None not in each}


def alone(rows: Sequence[Row], factors: Mapping[str, Sequence[Any]]) -> Row:
    """Of every level of every factor, the rest as in the centre: its value, and what it changes."""
    (centre,) = points_of(rows, {"centre"}).values()
    result: Row = {"centre": float(np.mean([row["value"] for row in centre.values()])), "factors": {}}
    for name in factors:
        levels = points_of(rows, {name})
        result["factors"][name] = [
            {"level": json.loads(point)[name], **changed(each, centre)} for point, each in levels.items()
        ]
    return result


def changed(rows: Mapping[int, Row], centre: Mapping[int, Row]) -> Row:
    """The mean value, its parts and its difference from the centre's."""
    failed = [row["failed"] for row in rows.values() if row["failed"]]
    if failed:
        return {"failed": failed[0]}
    paired = [row["value"] - centre[seed]["value"] for seed, row in rows.items()]
    means = {
        key: float(np.mean([row[key] for row in rows.values()]))
        for key in ("value", "gap", "tv", "auc", "gradient_evaluations")
    }
    return {**means, "change": float(np.mean(paired)), "interval": t_interval(paired)}


def forest_of(found: Found) -> Row:
    """What a forest makes of the points that fill the space."""
    values = values_of(found)
    points = [json.loads(point) for point in values]
    return {"failed": len(found) - len(values), **described(points, list(values.values()))}


def best_of(found: Found, most: int = 10) -> list[Row]:
    """The best points."""
    ranked = sorted(values_of(found).items(), key=lambda each: each[1])[:most]
    return [{"point": json.loads(point), "value": value} for point, value in ranked]


def transfer(filling: Mapping[str, Found]) -> Row:
    """How far settings that suit some stages suit another.

    The points that all stages share are ranked by the geometric mean of their values on all stages but one;
    the best of them is then looked at on that one, relative to its own best.
    """
    values = {stage: values_of(found) for stage, found in filling.items()}
    shared = sorted(set.intersection(*(set(each) for each in values.values())))
    table = {stage: [each[point] for point in shared] for stage, each in values.items()}
    pairs = [(a, b) for i, a in enumerate(table) for b in list(table)[i + 1 :]]
    chosen: Row = {}
    for stage in table if len(table) > 1 else ():
        others = [each for name, each in table.items() if name != stage]
        means = [geometric_mean(each) for each in zip(*others, strict=True)]
        place = int(np.argmin(means))
        value, best = table[stage][place], min(table[stage])
        chosen[stage] = {"point": json.loads(shared[place]), "value": value, "ratio": value / best}
    return {
        "points": len(shared),
        "rank correlation": {f"{a}, {b}": float(spearmanr(table[a], table[b])[0]) for a, b in pairs},
        "best of the others": chosen,
    }


def judged(whole: Mapping[str, Sequence[Row]], filling: Mapping[str, Found], name: str) -> Row:
    """Of a candidate, its value on each stage, and relative to the best point that fills the space there.

    That best one was chosen for its value on the very seeds, so a ratio of one can't be expected.
    """
    result: Row = {}
    for stage, rows in whole.items():
        mine, best = [row for row in rows if row["design"] == name], min(values_of(filling[stage]).values())
        failed = [row["failed"] for row in mine if row["failed"]]
        if not mine:
            continue
        result[stage] = {"failed": failed[0]} if failed else {**means_of(mine, best)}
    ratios = [each["ratio"] for each in result.values() if "ratio" in each]
    return {"stages": result, "ratio": geometric_mean(ratios) if len(ratios) == len(whole) else None}


def means_of(rows: Sequence[Row], best: float) -> Row:
    """The means of a candidate on one stage."""
    values = [row["value"] for row in rows]
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("gap", "tv", "gradient_evaluations")}
    mean = float(np.mean(values))
    return {"value": mean, "interval": t_interval(values), **means, "ratio": mean / best}


def printed(record: Row) -> str:
    """The tables of a record in Markdown."""
    found, stages = record["summary"], list(record["stages"])
    tables = (importance(found, stages), effects(found, stages), candidates(found, stages), moved(found))
    return "\n".join(line for table in tables for line in table)


def table(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    head = ["", f"**{title}**", "", f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    return head + [f"| {' | '.join(line)} |" for line in lines]


def importance(found: Row, stages: Sequence[str]) -> list[str]:
    """What the forests say: importance by shuffling, and the share of variance alone."""
    forests = [found["random"][stage] for stage in stages]
    names = sorted(forests[0]["importance"], key=lambda n: -sum(f["importance"][n] for f in forests))
    lines = [
        [name, *(f"{f['importance'][name]:.2f} / {f['alone'][name]:.2f}" for f in forests)] for name in names
    ]
    lines += [["explained of left-out points", *(f"{f['explained']:.2f}" for f in forests)]]
    lines += [["points", *(f"{f['points']} ({f['failed']} failed)" for f in forests)]]
    pairs = [[f"{' x '.join(p['pair'])} {p['share']:.3f}" for p in f["pairs"][:3]] for f in forests]
    return table("Importance: by shuffling / share of the forest's variance alone", stages, lines) + table(
        "Pairs that do most beyond the two",
        stages,
        [[f"{i + 1}.", *row] for i, row in enumerate(zip(*pairs, strict=True))],
    )


def effects(found: Row, stages: Sequence[str]) -> list[str]:
    """The value at every level of every factor."""
    lines: list[list[str]] = []
    for name in found["alone"][stages[0]]["factors"]:
        for stage in stages:
            cells = [
                f"{each['level']}: {each['value']:.2f}" if "value" in each else f"{each['level']}: failed"
                for each in found["alone"][stage]["factors"][name]
            ]
            lines.append([name, stage, f"{found['alone'][stage]['centre']:.2f}", "; ".join(cells)])
    return table("One at a time", ["stage", "centre", "value at each level"], lines)


def candidates(found: Row, stages: Sequence[str]) -> list[str]:
    """What complete settings are worth."""
    lines = [
        [
            name,
            *(cell(each["stages"].get(stage)) for stage in stages),
            f"{each['ratio']:.2f}" if each["ratio"] else "",
        ]
        for name, each in found["candidates"].items()
    ]
    return table("Complete settings: value, gradient evaluations", [*stages, "over the best points"], lines)


def cell(score: Row | None) -> str:
    """A candidate on one stage, if it was tried there."""
    if score is None:
        return ""
    if "failed" in score:
        return "failed"
    low, high = score["interval"]
    interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"  # none of a single seed
    return f"{score['value']:.2f}{interval}, {score['gradient_evaluations']:.0f}"


def moved(found: Row) -> list[str]:
    """How far settings carry over."""
    told = found["transfer"]
    lines = [[pair, f"{value:.2f}"] for pair, value in told["rank correlation"].items()]
    lines += [
        [f"best of the others, on {stage}", f"{each['value']:.2f}, {each['ratio']:.2f} times its best"]
        for stage, each in told["best of the others"].items()
    ]
    return table(f"Between stages, over {told['points']} points", ["rank correlation, or value"], lines)

"""What LUR's lookahead adds at equal settings: each of its rows again as "joint", which has no lookahead.

    python benchmarks/without_lookahead.py records/frontier-digits.json --out FOLDER --record FILE
    python benchmarks/without_lookahead.py records/frontier-digits.json --stages digits-trace --budgets 0.3

A frontier compares rows that were searched apart, so a difference is also the luck of two searches. Here the
settings are those that the search of the row with a lookahead found, in both, and its budget, all of which a
recovery spends: what the lookahead takes, the joint row has left for its recovery. So settings can favour
the row for which they were found. The same command goes on where it was stopped.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from frontier import print_progress
from rows import round_numbers, write_json

from unweave.bench.bench import bench
from unweave.bench.frontier import paired_difference
from unweave.bench.ranges import nest_paths
from unweave.bench.recipe import Recipe, load
from unweave.methods.configure import configure, stages_of
from unweave.methods.lur import LUR
from unweave.record.compact import read_record

Point = Mapping[str, Any]
JOINT = "without the lookahead"


def rows_of(stage: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The rows of a frontier with a lookahead, each with the path of its mode."""
    for name in stage["methods"]:
        for before, method in stages_of(recipe.method(name)).items():
            if isinstance(method, LUR) and method.mode != "joint":
                yield name, f"{before}mode"


def point_at(stage: Mapping[str, Any], name: str, budget: float) -> Point | None:
    """What a row reached at a budget; None if it has none or failed."""
    points = [each for each in stage["methods"][name]["points"] if each["budget"] == budget]
    return next((each for each in points if each["gap"]), None)


def recipes_of(
    recipe: Recipe, stage: Mapping[str, Any], budget: float, rows: Sequence[str]
) -> tuple[Recipe, Recipe]:
    """The recipe at a budget with the settings that were found, and with the same in mode joint."""
    with_lookahead, joint_methods = {}, {}
    for name, mode in rows_of(stage, recipe):
        if (not rows or name in rows) and (point := point_at(stage, name, budget)):
            with_lookahead[name] = configure(recipe.method(name), nest_paths(point["settings"]))
            joint_methods[name] = configure(with_lookahead[name], nest_paths({mode: "joint"}))
    tuning = replace(recipe.tuning, budget=budget, budgets=(budget,))
    first = replace(recipe, tuning=tuning, methods=with_lookahead, headline=next(iter(with_lookahead)))
    return first, replace(first, name=f"{recipe.name}, {JOINT}", methods=joint_methods)


def compare(
    recipe: Recipe, stage: Mapping[str, Any], budgets: Sequence[float], of: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Both kinds of every row at every budget, paired by seed."""
    recipes = [each for budget in budgets for each in recipes_of(recipe, stage, budget, of.rows)]
    names = list(dict.fromkeys(name for each in recipes for name in each.methods))
    results = bench(
        recipes, of.out, methods=["original", *names], seeds=of.seeds, jobs=of.jobs, listener=print_progress
    )
    pairs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for first, second in zip(recipes[::2], recipes[1::2], strict=True):
        (budget,) = first.tuning.budgets
        for name in first.methods:
            rows = [results["stages"][f"{each.name}@{budget}"]["methods"][name] for each in (first, second)]
            pairs[name].append({"budget": budget, **pair(*rows)})
    return pairs


def pair(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Gaps and verdicts with and without the lookahead, and the paired difference of the gaps."""
    pair_rows = {"lookahead": ours, "joint": theirs}
    rows = {
        key: {"verdict": row["verdict"], "gaps": row["per_seed"]["gap"]}
        if row["failed"] is None
        else {"verdict": row["verdict"], "failed": row["failed"]}
        for key, row in pair_rows.items()
    }
    if any("failed" in row for row in rows.values()):
        return rows
    return {**rows, **paired_difference(*(row["gaps"] for row in rows.values()))}


def print_table(name: str, rows: Mapping[str, Sequence[Mapping[str, Any]]], budgets: Sequence[float]) -> None:
    """Prints the differences of a stage as a table, and how many exclude zero."""
    print(f"\n### {name}\n\n| Row | {' | '.join(map(str, budgets))} |\n| :-- {'| --: ' * len(budgets)}|")
    for row, points in rows.items():
        cells = {each["budget"]: cell(each) for each in points}
        print(f"| `{row}` | {' | '.join(cells.get(budget, '') for budget in budgets)} |")
    pairs = [each for points in rows.values() for each in points if each.get("low") is not None]
    lower, higher = sum(each["high"] < 0 for each in pairs), sum(each["low"] > 0 for each in pairs)
    print(f"\nOf {len(pairs)} intervals {lower} are below zero and {higher} above.")


def cell(each: Mapping[str, Any]) -> str:
    """A difference with half of its interval, and both verdicts."""
    verdicts = f"{each['lookahead']['verdict'][0]}{each['joint']['verdict'][0]}"
    if "low" not in each:
        return f"failed {verdicts}"
    reach = "" if each["low"] is None else f" ±{(each['high'] - each['low']) / 2:.2f}"
    return f"{each['difference']:+.2f}{reach} {verdicts}"


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("frontier", type=Path, help="a record of `frontier.py`")
    parser.add_argument("--stages", nargs="+", help="recipes by name; all of the record if none are given")
    parser.add_argument("--rows", nargs="+", default=[], help="names of rows; all with a lookahead if none")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.2, 0.3, 0.45])
    parser.add_argument("--seeds", type=int, help="how many of the recipes' seeds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("unweave-without-lookahead"), help="keeps models")
    parser.add_argument("--record", type=Path, help="a JSON file, to which each stage is added")
    of = parser.parse_args()
    torch.set_num_threads(1)
    frontier = read_record(of.frontier)["stages"]
    for name in of.stages or frontier:
        rows = compare(load(name), frontier[name], of.budgets, of)
        print_table(name, rows, of.budgets)
        if of.record:
            content = json.loads(of.record.read_text()) if of.record.exists() else {"stages": {}}
            content = {"question": (__doc__ or "").splitlines()[0], **content}
            content["stages"][name] = round_numbers(rows)
            write_json(of.record, content)


if __name__ == "__main__":
    main()

"""What a PASS costs each method: its gap at several budgets, on several stages, in a compact record.

    python benchmarks/frontier.py digits-trace digits-class --budgets 0.03,0.1,0.3    # prints tables
    python benchmarks/frontier.py digits-trace --methods lur,joint --record records/frontier-digits.json
    python benchmarks/frontier.py fashion-mnist-random10@0.3 --tune 0 --first-seed 30

Each stage is a recipe, which `unweave.bench.bench` searches and runs at each budget; the folder keeps models,
cells and searches, and the same command goes on where it was stopped. The record holds, for each stage, what
a retraining takes, the margins and the floor, and for each method and budget the settings that were found,
the gap of every seed, the verdict and the costs: no pictures, no histograms, no trials.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compact import write_compact
from rows import Row, round_numbers

from unweave.bench.bench import bench
from unweave.bench.recipe import Recipe, load
from unweave.bench.study import study_from
from unweave.bench.workers import Progress
from unweave.report import frontier
from unweave.report.frontier_figure import figure

BUDGETS = (0.03, 0.1, 0.2, 0.3, 0.45, 0.6)


def select_figures(results: Mapping[str, Any]) -> Row:
    """A record without all that only a page draws, each number once and rounded."""
    frontiers = results["frontier"]
    return {
        "question": (__doc__ or "").splitlines()[0],
        "environment": results["environment"],
        "stages": {name: stage_of(entry, of_recipe(name, results)) for name, entry in frontiers.items()},
    }


def of_recipe(name: str, results: Mapping[str, Any]) -> dict[float, Mapping[str, Any]]:
    """The stages of a recipe, by their budget."""
    stages = [stage for stage in results["stages"].values() if stage["recipe"]["name"] == name]
    return {stage["recipe"]["tuning"]["budget"]: stage for stage in stages}


def stage_of(entry: Mapping[str, Any], stages: Mapping[float, Mapping[str, Any]]) -> Row:
    """A recipe: what all of its stages share, and its methods at each budget."""
    one = next(iter(stages.values()))
    recipe = {key: one["recipe"][key] for key in ("data", "model", "train", "tuning")}
    # where data lies is nobody's business, and each point has its budget
    recipe["data"] = {key: value for key, value in recipe["data"].items() if key != "folder"}
    recipe["tuning"] = {key: value for key, value in recipe["tuning"].items() if key != "budget"}
    return {
        "recipe": recipe,
        "data": one["data"]["digest"],
        "seeds": one["seeds"],
        "calibration_seeds": one["calibration_seeds"],
        "trials": one["tuned"]["trials"] if "tuned" in one else 0,
        "retraining": one["reference"]["gradient_evaluations"],
        "margins": round_numbers(one["margins"]),
        **{key: round_numbers(entry[key]) for key in ("budgets", "floor", "margin", "original", "paired")},
        "methods": {name: curve(name, each, stages) for name, each in entry["methods"].items()},
    }


def curve(name: str, entry: Mapping[str, Any], stages: Mapping[float, Mapping[str, Any]]) -> Row:
    """A method: what a PASS costs it, and what it reached at each budget with which settings."""
    rows = {point["budget"]: stages[point["budget"]] for point in entry["points"]}
    points = [
        {**point, "settings": settings(name, stage), **seeds(stage["methods"][name])}
        for point, stage in zip(entry["points"], rows.values(), strict=True)
    ]
    return {"cost_of_pass": entry["cost_of_pass"], "points": round_numbers(points)}


def settings(name: str, stage: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a search chose, as it was run; the method itself where nothing was searched."""
    if "tuned" not in stage:
        return {"method": stage["methods"][name]["repr"]}
    return study_from(stage["search"].get(name, []), stage["tuned"]["scale"]).settings


def seeds(row: Mapping[str, Any]) -> Row:
    """The gap of each seed, where the method ran to its end; and the reason where it did not pass."""
    reason = {} if row["verdict"] == "PASS" else {"reason": row["reason"]}
    return {"gaps": row["per_seed"]["gap"], **reason} if row["failed"] is None else {}


def plot(name: str, entry: Mapping[str, Any], folder: Path) -> None:
    """Writes the gap against cost as an SVG file, whose root needs name spaces."""
    svg = figure(entry) or ""
    text = svg.replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ', 1
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"frontier-{name}.svg").write_text(text)


def with_budgets(recipe: Recipe, text: str | None) -> Recipe:
    """The recipe at the budgets asked for, with commas between, or else at its own or the usual ones."""
    own_budgets = recipe.tuning.budgets or BUDGETS
    budgets = own_budgets if text is None else tuple(float(each) for each in text.split(","))
    return replace(recipe, tuning=replace(recipe.tuning, budget=None, budgets=budgets))


def with_seeds(recipe: Recipe, first: int | None) -> Recipe:
    """The recipe with as many seeds from another first one."""
    return recipe if first is None else replace(recipe, seeds=tuple(range(first, first + len(recipe.seeds))))


def print_progress(progress: Progress) -> None:
    """Says which piece of work is done."""
    print(f"{progress.done}/{progress.total}  {progress.label}", flush=True)


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stages", nargs="+", help="recipes, by name or file")
    parser.add_argument("--budgets", help="with commas between; those of a recipe, or else six")
    parser.add_argument("--methods", help="names with commas between them; all if none are given")
    parser.add_argument("--tune", type=int, default=20, help="trials per method and budget")
    parser.add_argument("--seeds", type=int, help="how many of the recipes' seeds")
    parser.add_argument("--first-seed", type=int, help="the first of as many seeds, instead of the recipes'")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--device", default="cpu", help="where the models are; with cuda --jobs 1 is best")
    parser.add_argument("--out", type=Path, default=Path("unweave-frontier"), help="keeps models and cells")
    parser.add_argument("--record", type=Path, help="where the compact record is written to")
    parser.add_argument("--plot", type=Path, help="a folder for one plot a stage")
    arguments = parser.parse_args()
    results = bench(
        [
            with_budgets(with_seeds(load(name), arguments.first_seed), arguments.budgets)
            for name in arguments.stages
        ],
        arguments.out,
        methods=arguments.methods.split(",") if arguments.methods else None,
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        tune=arguments.tune,
        device=arguments.device,
        listener=print_progress,
    )
    for name, entry in results["frontier"].items():
        print("\n".join(frontier.text(name, entry, width=120)))
        if arguments.plot:
            plot(name, entry, arguments.plot)
    if arguments.record:
        write_compact(select_figures(results), arguments.record)


if __name__ == "__main__":
    main()

"""Which estimate of what a retrained model would say brings LUR nearest to one, where it was not tuned?

    python benchmarks/targets.py                                # prints the table
    python benchmarks/targets.py --record records/targets.json

LUR runs with each of its targets, and with the usual losses, which have none; it begins between the
original's weights and fresh ones, and a recovery follows. Each is tuned by 60 trials on the two tuning seeds
of digits-trace, at equal gradient evaluations, proxies included. With the best settings it runs on ten
seeds of digits-trace and of stages that nothing was tuned on: fewer and more wrong labels, more to forget, a
narrower net. The table also has the difference of a second retrained model.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from compact import write_compact

from unweave.audits.classifier.metrics import METRICS, measure
from unweave.audits.metrics import mean_gap
from unweave.audits.score import interval
from unweave.bench.ranges import Settings, nest_paths
from unweave.bench.recipe import Recipe, load, parse
from unweave.bench.search import SECOND, Trial, make_case, search
from unweave.bench.stage import Stage
from unweave.bench.study import study_from
from unweave.bench.tune import prepare
from unweave.bench.workers import prepare_worker
from unweave.descent.timing import run_and_time
from unweave.errors import Failed
from unweave.methods.configure import configure
from unweave.methods.pipeline import Pipeline
from unweave.record.record import environment

Row = dict[str, Any]
TUNED_ON = "digits-trace"
SECOND_RETRAIN = "a second retrained model"
TARGETS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "level": {"forget": "level"},
    "match": {"forget": "match"},
    "quantile": {"forget": "quantile"},
    "quantile, the original's ranks": {"forget": {"kind": "quantile", "ranks": "original"}},
}
METHOD = "shrink-perturb:lur:recover"


@dataclass(frozen=True)
class Change:
    """What a stage has other than digits-trace.

    Args:
        data: Fields of the data.
        model: Settings of the model.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


STAGES = {
    "as tuned": Change(),
    "a tenth of the labels wrong": Change({"noise": 0.1}),
    "two fifths of the labels wrong": Change({"noise": 0.4}),
    "three tenths to forget": Change({"fraction": 0.3}),
    "a quarter of the width": Change(model={"hidden": 128}),
}


def stage_of(name: str, folder: str) -> Stage:
    """A stage; its models are kept in the folder."""
    recipe, change = load(TUNED_ON), STAGES[name]
    model = replace(recipe.model, settings={**recipe.model.settings, **change.model})
    return Stage(replace(recipe, data=replace(recipe.data, **change.data), model=model), Path(folder))


def method_of(target: str, recipe: Recipe) -> Pipeline:
    """LUR with a target, trained as the recipe trains, before anything is tuned."""
    method = parse({**recipe.table(), "methods": {METHOD: {"lur": TARGETS[target]}}}).method(METHOD)
    assert isinstance(method, Pipeline)
    return method


def tune(folder: str, trials: int, target: str) -> list[Trial]:
    """The search of a target's settings on the tuning seeds."""
    stage = stage_of("as tuned", folder)
    tuning, method = stage.recipe.tuning, method_of(target, stage.recipe)
    budget = round(tuning.largest_budget * prepare(stage, tuning.seeds[0]))
    return search(method, method.space(budget), trials, [make_case(stage, each) for each in tuning.seeds])


def runs_of(folder: str, best: Mapping[str, Settings], name: str, seed: int) -> list[Row]:
    """Every target on one seed of a stage, and a second retrained model."""
    stage = stage_of(name, folder)
    original = stage.load_or_train("mixed", seed).model
    reference, second = (
        stage.exam().answers(stage.load_or_train("retain", each).model) for each in (seed, SECOND + seed)
    )
    expected = measure(reference, None)
    cases = [(SECOND_RETRAIN, second, 0)]
    failures: list[Row] = []
    for target, settings in best.items():
        problem = stage.problem(original, seed, {})
        try:
            cost = run_and_time(problem, configure(method_of(target, stage.recipe), nest_paths(settings)))
        except (ValueError, Failed) as error:
            failures.append({"stage": name, "seed": seed, "target": target, "failed": str(error)})
        else:
            cases.append((target, stage.exam().answers(problem.model), cost.gradients))
    rows: list[Row] = []
    for target, answers, gradients in cases:
        values = measure(answers, reference)
        differences = {
            "gap": mean_gap(values, expected, METRICS),
            "tv": values["tv"],
            "auc": values["auc"] - expected["auc"],
        }
        rows.append(
            {"stage": name, "seed": seed, "target": target, **differences, "gradient_evaluations": gradients}
        )
    return rows + failures


def experiment(seeds: int, trials: int, jobs: int) -> Row:
    """The whole record."""
    recipe = load(TUNED_ON)
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(jobs, get_context("spawn"), prepare_worker) as pool,
    ):
        logs = dict(zip(TARGETS, pool.map(partial(tune, folder, trials), TARGETS), strict=True))
        best = {target: study_from(log).best for target, log in logs.items()}
        names, chosen_seeds = zip(
            *((name, seed) for name in STAGES for seed in recipe.seeds[:seeds]), strict=True
        )
        rows = [
            row
            for results in pool.map(partial(runs_of, folder, best), names, chosen_seeds)
            for row in results
        ]
    return {
        "question": (__doc__ or "").splitlines()[0],
        "tuned_on": {"stage": TUNED_ON, "seeds": recipe.tuning.seeds, "trials": trials},
        "settings": best,
        "environment": environment(),
        "summary": {name: summary([row for row in rows if row["stage"] == name]) for name in STAGES},
        "runs": rows,
        "search": logs,
    }


def summary(rows: Sequence[Row]) -> Row:
    """Means over seeds with intervals for each target, and the difference of its gap from that of "level"."""
    by_target = {
        target: [row for row in rows if row["target"] == target] for target in (SECOND_RETRAIN, *TARGETS)
    }
    level = {row["seed"]: row for row in by_target["level"] if "failed" not in row}
    return {target: of_target(results, level) for target, results in by_target.items()}


def of_target(rows: Sequence[Row], level: Mapping[int, Row]) -> Row:
    """The figures of one target on one stage."""
    valid_rows = [row for row in rows if "failed" not in row]
    if not valid_rows:
        return {"failed": rows[0]["failed"]}
    differences = [row["gap"] - level[row["seed"]]["gap"] for row in valid_rows if row["seed"] in level]
    figures = {key: [row[key] for row in valid_rows] for key in ("gap", "tv", "auc")} | {
        "gap_above_level": differences
    }
    means = {key: {"mean": float(np.mean(each)), "interval": interval(each)} for key, each in figures.items()}
    return {**means, "seeds": len(valid_rows)}


def printed(results: Row) -> list[str]:
    """The tables as lines."""
    lines: list[str] = []
    for name, targets in results["summary"].items():
        lines += ["", f"{name:34} gap                 TV     gap - level's"]
        for target, each in targets.items():
            cells = each.get("failed") or (
                f"{each['gap']['mean']:5.2f} {format_interval(each['gap'])}  {each['tv']['mean']:.3f}  "
                f"{each['gap_above_level']['mean']:+5.2f} {format_interval(each['gap_above_level'])}"
            )
            lines.append(f"  {target:32} {cells}")
    return lines


def format_interval(figure: Row) -> str:
    """An interval; nothing for a few seeds, which have none."""
    low, high = figure["interval"]
    return "" if np.isnan(low) else f"[{low:5.2f}, {high:5.2f}]"


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many of the seeds that are reported")
    parser.add_argument("--trials", type=int, default=60, help="trials of tuning per target")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--record", type=Path, help="a file for everything that was measured")
    arguments = parser.parse_args()
    results = experiment(arguments.seeds, arguments.trials, arguments.jobs)
    print("\n".join(printed(results)))
    if arguments.record:
        write_compact(results, arguments.record)


if __name__ == "__main__":
    main()

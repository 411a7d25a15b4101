"""Does a method take as many seconds as its gradients say? CPU time beside a retraining of the same recipe.

    python benchmarks/seconds.py digits-trace@0.3 digits-class@0.3 --record records/seconds.json

Each method of a recipe with settings at a budget runs once a round, and so does a retraining on the retain
set, in turns that begin with another one in each round. A run's CPU time on one thread is divided by the
retraining's of its round; so are its gradient evaluations. `overhead` is the median of the ratio of the two:
1 means that a method is as dear as its gradients.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch
from rows import write_json
from timed_rounds import make_parser, turns

from unweave.bench.recipe import load
from unweave.bench.stage import Stage
from unweave.bench.study import REFERENCES
from unweave.descent.timing import warm_up
from unweave.methods import Method
from unweave.record.record import environment

BASE, MOST = "retrain", 1.15
"""What the others are divided by, and the largest overhead that is aimed at."""

Times = dict[str, list[tuple[float, int]]]
"""CPU seconds and gradient evaluations of every round, by method."""


def measure(stage: Stage, rounds: int) -> Times:
    """Runs every method and a retraining from the same original, in interleaved rounds."""
    recipe, seed = stage.recipe, stage.recipe.seeds[0]
    methods = {name: recipe.method(name) for name in sorted(recipe.configured_methods() - set(REFERENCES))}
    methods[BASE] = recipe.method(BASE)
    original = stage.load_or_train("mixed", seed).model
    names, times = list(methods), {name: [] for name in methods}
    for name in turns(names, rounds):
        times[name].append(run(stage, original, seed, methods[name]))
    return times


def run(stage: Stage, original: torch.nn.Module, seed: int, method: Method) -> tuple[float, int]:
    """One run on a copy of the original."""
    problem = stage.problem(original, seed, {})
    start = process_time()
    method(problem)
    return process_time() - start, problem.cost.gradients


def summarize(times: Times) -> dict[str, Any]:
    """The share of a retraining's seconds and gradients of every method, and their ratio."""
    return {name: row(each, times[BASE]) for name, each in times.items() if name != BASE}


def row(times: list[tuple[float, int]], base: list[tuple[float, int]]) -> dict[str, Any]:
    """The row of one method."""
    seconds = [mine / theirs for (mine, _), (theirs, _) in zip(times, base, strict=True)]
    gradients = [mine / theirs for (_, mine), (_, theirs) in zip(times, base, strict=True)]
    ratios = [second / gradient for second, gradient in zip(seconds, gradients, strict=True)]
    return {
        "seconds": median(seconds),
        "gradients": median(gradients),
        "overhead": median(ratios),
        "quartiles": quantiles(ratios, n=4)[::2],
    }


def table(name: str, rows: Mapping[str, Any]) -> str:
    """The rows of a recipe as text."""
    lines = [f"{name}: share of a retraining"]
    for method, each in rows.items():
        low, high = each["quartiles"]
        lines.append(
            f"  {method:<24} CPU {each['seconds']:.3f}  gradients {each['gradients']:.3f}  "
            f"overhead {each['overhead']:.2f} ({low:.2f} to {high:.2f})"
            f"{'' if each['overhead'] <= MOST else f', above {MOST}'}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and writes a record."""
    parser = make_parser(__doc__, rounds=9)
    parser.add_argument("recipes", nargs="+", help="recipes at a budget, such as digits-trace@0.3")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warm_up()
    stages = {}
    with TemporaryDirectory() as folder:
        for name in arguments.recipes:
            stages[name] = summarize(measure(Stage(load(name), Path(folder)), arguments.rounds))
            print(table(name, stages[name]), flush=True)
    record = {"rounds": arguments.rounds, "stages": stages, "environment": environment()}
    write_json(arguments.record, record)


if __name__ == "__main__":
    main()

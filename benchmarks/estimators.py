"""Which estimate of what a retrained model would answer on the forget data is nearest, for what it costs?

    python benchmarks/estimators.py                                   # prints the tables
    python benchmarks/estimators.py --record records/estimators.json

On every stage and seed an original and a retrained model are trained as the recipe says. Each estimator is
asked at several budgets, in gradient evaluations relative to retraining, and its answers on the forget part
are compared with the retrained model's, example by example. Then the joint loss descends to each estimate,
with settings that are the same for all and tuned for none. A second retrained model is the floor, the
original the ceiling. Estimators read no retrained model.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from compact import write_compact
from estimator_cases import DESCENT, REACHED, Case
from estimator_tables import summary, table_lines
from rows import Row, write_json
from torch import nn

from unweave.bench.recipe import load
from unweave.bench.stage import Stage
from unweave.bench.workers import prepare_worker
from unweave.descent.descend import Descent
from unweave.descent.timing import run_and_time
from unweave.record.record import environment
from unweave.targets.estimators import Answers, Estimator, Influence, Pool, Proxy, Ranks, Shards, share_length

BUDGETS = (0.1, 0.2, 0.3, 0.6)
SECOND_RETRAIN, ORIGINAL, ITSELF = "a second retrained model", "the original", "the retrained model itself"
SHORT = "a short retraining"
"""From scratch, for as long as an estimate and the descent to it take together."""
STAGES: Mapping[str, int] = {
    "digits-clean": 10,
    "digits-trace": 10,
    "digits-class": 10,
    "fashion-mnist-random10": 3,
    "fashion-mnist-class": 3,
}
"""Seeds of each."""


def budgeted_estimators(how: Descent) -> dict[str, Estimator]:
    """The estimators that train something, all of them for as long as `how` says in total."""
    half, scratch, shrunk = share_length(how, 2), Proxy(how=how), Proxy("shrunk", 0.4, how)
    return {
        "proxy": Answers(scratch),
        "proxy, at its own level": Answers(scratch, level="own"),
        "proxy, shrunk start": Answers(shrunk),
        "proxy, redrawn start": Answers(Proxy("reinitialized", 0.3, how)),
        "proxy's ranks": Ranks("proxy", scratch),
        "chosen ranks": Ranks("chosen", scratch),
        "chosen ranks, shrunk start": Ranks("chosen", shrunk),
        "pool of one, shrunk start": Pool((shrunk,)),
        "pool of two, shrunk start and scratch": Pool((Proxy(how=half), Proxy("shrunk", 0.4, half))),
        "shards": Shards(2, how=half),
    }


FREE: dict[str, Estimator] = {"original's ranks": Ranks("original"), "influence": Influence()}
"""Those that train nothing."""


def rows_of_seed(folder: str, budgets: Sequence[float], name: str, seed: int) -> list[Row]:
    """All rows of one seed of a stage, from the folder if they were measured before."""
    place = Path(folder) / f"{name}-{seed}.json"
    if not place.exists():
        write_json(place, runs_of(folder, budgets, name, seed))
    return json.loads(place.read_text())


def runs_of(folder: str, budgets: Sequence[float], name: str, seed: int) -> list[Row]:
    """All rows of one seed of a stage; models are kept in the folder."""
    case = Case(Stage(load(name), Path(folder)), seed)
    runs = [(each, None, estimator) for each, estimator in FREE.items()]
    for budget in budgets:
        runs += [
            (each, budget, estimator) for each, estimator in budgeted_estimators(case.lasting(budget)).items()
        ]
    short = Proxy(how=case.lasting(REACHED + DESCENT))(case.problem())
    models = {
        SECOND_RETRAIN: case.second,
        ORIGINAL: case.original,
        ITSELF: case.retrained.model,
        SHORT: short,
    }
    rows = [{"estimator": each, "budget": None, **stood(case, model)} for each, model in models.items()]
    for each, share, estimator in runs:
        rows.append({"estimator": each, "budget": share, **measure_estimate(case, estimator, share)})
    return [{"stage": name, "seed": seed, **row} for row in rows]


def stood(case: Case, model: nn.Module) -> Row:
    """The figures of a model that is no estimate: of its answers, of the descent to them, and its own gap."""
    answers = case.answers(model)
    return {**case.figures(answers), **case.gap(answers), "own_gap": case.standing(model)["gap"]}


def measure_estimate(case: Case, estimator: Estimator, share: float | None) -> Row:
    """The figures of an estimate, and its cost relative to retraining."""
    problem, estimates = case.problem(), []
    try:
        cost = run_and_time(problem, lambda problem: estimates.append(estimator(problem)))
    except ValueError as error:
        return {"refused": str(error)}
    answers, retraining = estimates[0].logits.numpy(), case.retrained.cost
    relative = {
        "gradients": cost.gradients / retraining.gradients,
        "examples": cost.examples / retraining.examples,
        "seconds": cost.seconds / retraining.seconds,
    }
    gap = case.gap(answers) if share in (None, REACHED) else {}
    return {"cost": relative, **case.figures(answers), **gap}


def experiment(stages: Mapping[str, int], budgets: Sequence[float], jobs: int, folder: str) -> Row:
    """The whole record; the first seed of every stage comes first."""
    seeds = {name: load(name).seeds[:count] for name, count in stages.items()}
    tasks = [(place, name, seed) for name in stages for place, seed in enumerate(seeds[name])]
    names, seed_of_task = zip(*((name, seed) for _, name, seed in sorted(tasks)), strict=True)
    with ProcessPoolExecutor(jobs, get_context("spawn"), prepare_worker) as pool:
        rows = [
            row
            for seed_rows in pool.map(partial(rows_of_seed, folder, budgets), names, seed_of_task)
            for row in seed_rows
        ]
    return {
        "question": (__doc__ or "").splitlines()[0],
        "descent": {
            "share": DESCENT,
            "to_estimates_at": REACHED,
            "estimators": repr(budgeted_estimators(Descent(epochs=1))),
        },
        "environment": environment(),
        "summary": {name: summary([row for row in rows if row["stage"] == name]) for name in stages},
        "runs": rows,
    }


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="relative to retraining")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="which stages")
    parser.add_argument(
        "--seeds", type=int, help="how many seeds at most, instead of the number of each stage"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--folder", type=Path, help="keeps models and finished seeds, to go on")
    parser.add_argument("--record", type=Path, help="a file for everything that was measured")
    arguments = parser.parse_args()
    if REACHED not in arguments.budgets:
        parser.error(f"the budgets must hold {REACHED}, at which estimates are descended to")
    stages = {name: min(arguments.seeds or STAGES[name], STAGES[name]) for name in arguments.stages}
    with TemporaryDirectory() as empty:
        results = experiment(stages, arguments.budgets, arguments.jobs, str(arguments.folder or empty))
    print("\n".join(table_lines(results)))
    if arguments.record:
        write_compact(results, arguments.record)


if __name__ == "__main__":
    main()

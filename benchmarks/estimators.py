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
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from compact import write_compact
from torch import nn

from unweave.audits.classifier.distance import ranks
from unweave.audits.classifier.logits import Labels, Logits, confidence, margin, probabilities
from unweave.audits.classifier.metrics import METRICS, measure
from unweave.audits.metrics import mean_gap
from unweave.audits.score import FEWEST, interval
from unweave.bench.recipe import load
from unweave.bench.search import SECOND
from unweave.bench.stage import Memory, Stage
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.descent.timing import run_and_time
from unweave.descent.train import TrainedModel
from unweave.problem import Problem
from unweave.record.files import write_atomically
from unweave.record.record import environment
from unweave.targets.estimators import Answers, Estimator, Influence, Pool, Proxy, Ranks, Shards, share_length
from unweave.targets.estimators.held_out import logits, match_table, spread

Row = dict[str, Any]
BUDGETS = (0.1, 0.2, 0.3, 0.6)
REACHED = 0.3
"""The budget at which the joint loss descends to an estimate."""
DESCENT = 0.3
"""The gradient evaluations of that descent, relative to retraining."""
PLAIN = "proxy"
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


@dataclass(frozen=True)
class Case:
    """One seed of a stage.

    Args:
        stage: The stage.
        seed: Of its models.
        data_seed: Cuts the data anew; None for the recipe's own cut.
        memory: Trained proxies, which several estimators share; each is charged for them.
    """

    stage: Stage
    seed: int
    data_seed: int | None = None
    memory: Memory = field(default_factory=dict)

    @cached_property
    def original(self) -> nn.Module:
        """What was trained on all data."""
        return self.stage.load_or_train("mixed", self.seed, self.data_seed).model

    @cached_property
    def retrained(self) -> TrainedModel:
        """What an estimate is compared with."""
        return self.stage.load_or_train("retain", self.seed, self.data_seed)

    @cached_property
    def second(self) -> nn.Module:
        """Another retrained model."""
        return self.stage.load_or_train("retain", SECOND + self.seed, self.data_seed).model

    def problem(self) -> Problem:
        """The request to forget."""
        return self.stage.problem(self.original, self.seed, self.memory, self.data_seed)

    def lasting(self, share: float, price: int = 1) -> Descent:
        """The recipe's training for a share of its gradient evaluations, at a number of them per step."""
        steps = max(1, round(share * self.retrained.cost.gradients / price))
        return replace(self.stage.recipe.train, epochs=None, steps=steps)

    def answers(self, model: nn.Module) -> Logits:
        """What a model says of the forget part."""
        return logits(self.problem(), model, "forget").numpy()

    def figures(self, answers: Logits) -> Row:
        """How far answers on the forget part lie from those of the retrained model, and of the second one.

        The first began at the weights that the original began at, and so may resemble it, and all that
        begins with it, more than a retrained model must; the second began elsewhere.
        """
        split = self.stage.split(self.data_seed)
        labels = split.train.labels[split.forget].numpy()
        elsewhere = distances(answers, self.answers(self.second), labels)
        return {
            **distances(answers, self.answers(self.retrained.model), labels),
            "tv_elsewhere": elsewhere["tv"],
            "rank_elsewhere": elsewhere["rank"],
        }

    def gap(self, answers: Logits) -> Row:
        """How near the joint loss comes to the retrained model when it descends to the answers."""
        problem = self.problem()
        table = match_table(spread(problem, torch.from_numpy(answers)))
        descend(problem, self.lasting(DESCENT, price=2), Phase([nll("retain"), table]))
        return self.standing(problem.model)

    def standing(self, model: nn.Module) -> Row:
        """The mean gap of a model, and its total variation on the forget part."""
        exam = self.stage.exam(self.data_seed)
        reference = exam.answers(self.retrained.model)
        values = measure(exam.answers(model), reference)
        return {"gap": mean_gap(values, measure(reference, None), METRICS), "reached_tv": values["tv"]}


def distances(answers: Logits, target: Logits, labels: Labels) -> Row:
    """Per-example distances, means over examples: total variation, divergence, order, and level."""
    p, q = probabilities(answers), probabilities(target)
    orders = [ranks(margin(each, labels)) for each in (answers, target)]
    levels = [confidence(each, labels).mean() for each in (answers, target)]
    log = np.log(np.maximum(p, 1e-300))
    return {
        "tv": float(np.abs(p - q).sum(1).mean() / 2),
        "kl": float((q * (np.log(np.maximum(q, 1e-300)) - log)).sum(1).mean()),
        "rank": float(np.corrcoef(np.stack(orders))[0, 1]),
        "level": float(100 * abs(levels[0] - levels[1])),
    }


def rows_of_seed(folder: str, budgets: Sequence[float], name: str, seed: int) -> list[Row]:
    """All rows of one seed of a stage, from the folder if they were measured before."""
    place = Path(folder) / f"{name}-{seed}.json"
    if not place.exists():
        write_atomically(place, json.dumps(runs_of(folder, budgets, name, seed)))
    return json.loads(place.read_text())


def runs_of(
    folder: str, budgets: Sequence[float], name: str, seed: int, data_seed: int | None = None
) -> list[Row]:
    """All rows of one seed of a stage; models are kept in the folder."""
    case = Case(Stage(load(name), Path(folder)), seed, data_seed)
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
    answers, whole = estimates[0].logits.numpy(), case.retrained.cost
    relative = {
        "gradients": cost.gradients / whole.gradients,
        "examples": cost.examples / whole.examples,
        "seconds": cost.seconds / whole.seconds,
    }
    gap = case.gap(answers) if share in (None, REACHED) else {}
    return {"cost": relative, **case.figures(answers), **gap}


def experiment(stages: Mapping[str, int], budgets: Sequence[float], jobs: int, folder: str) -> Row:
    """The whole record; the first seed of every stage comes first."""
    seeds = {name: load(name).seeds[:count] for name, count in stages.items()}
    tasks = [(place, name, seed) for name in stages for place, seed in enumerate(seeds[name])]
    names, seed_of_task = zip(*((name, seed) for _, name, seed in sorted(tasks)), strict=True)
    with crew(jobs) as pool:
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


def crew(jobs: int) -> ProcessPoolExecutor:
    """Processes of one thread each."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,))


def summary(rows: Sequence[Row]) -> list[Row]:
    """Per estimator and budget: means over seeds, and the paired difference from the plain proxy."""
    groups: dict[tuple[str, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["estimator"], row["budget"]), []).append(row)
    return [
        {"estimator": name, "budget": budget, **of_group(of_estimator, groups[PLAIN, budget or REACHED])}
        for (name, budget), of_estimator in groups.items()
    ]


def of_group(rows: Sequence[Row], proxy_rows: Sequence[Row]) -> Row:
    """The figures of one estimator at one budget; `proxy_rows` are those of the plain proxy, by seed."""
    finished = [row for row in rows if "refused" not in row]
    if not finished:
        return {"refused": rows[0]["refused"]}
    by_seed = {row["seed"]: row for row in proxy_rows}
    figures = {}
    for key in MEASURED:
        if key in finished[0]:
            figures[key] = with_interval([row[key] for row in finished])
            differences = [
                row[key] - by_seed[row["seed"]][key] for row in finished if key in by_seed[row["seed"]]
            ]
            figures[key] |= {"less_the_proxy": with_interval(differences)} if differences else {}
    cost = {
        key: float(np.mean([row["cost"][key] for row in finished])) for key in finished[0].get("cost", {})
    }
    return {"seeds": len(finished), "cost": cost, **figures}


MEASURED = ("tv", "kl", "rank", "level", "tv_elsewhere", "rank_elsewhere", "gap", "reached_tv", "own_gap")


def with_interval(values: Sequence[float]) -> Row:
    """The mean and its 95 % interval, if there are seeds enough for one."""
    return {"mean": float(np.mean(values)), "interval": interval(values) if len(values) >= FEWEST else None}


def table_lines(results: Row) -> list[str]:
    """The tables as lines."""
    lines: list[str] = []
    for name, rows in results["summary"].items():
        lines += ["", f"{name:40} budget gradients seconds    TV    KL  rank level   gap"]
        for row in rows:
            title = f"  {row['estimator']:38} {row['budget'] or '':>6}"
            lines.append(f"{title} {row.get('refused') or cells(row)}")
    return lines


def cells(row: Row) -> str:
    """The figures of a row."""
    costs = [f"{row['cost'][key]:8.2f}" if row["cost"] else " " * 8 for key in ("gradients", "seconds")]
    keys = ("tv", "kl", "rank", "level", "gap")
    return " ".join(costs + [f"{row[key]['mean']:6.3f}" for key in keys if key in row])


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

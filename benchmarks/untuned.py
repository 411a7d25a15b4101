"""Where nothing was tuned: is LUR as it comes as near to a retrained model as LUR after a search?

    python benchmarks/untuned.py --cifar10 FOLDER                                  # prints the tables
    python benchmarks/untuned.py --cifar10 FOLDER --record records/untuned.json

The defaults of LUR were chosen on other data, models and forget sets (`hyperparameters.py`). The first three
stages were looked at before the recovery of now was chosen, and what they showed led to it: they tell no more
than that it does there what it is for. The others were written down before anything was run on them, and are
what the defaults are judged on.

A search of 20 trials on two tuning seeds of a stage tries the settings of LUR and of others, each within the
recipe's budget of gradient evaluations. Beside the methods stands what a second retrained model differs by.
All figures are on the test part, over training seeds.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from unweave.audit.metrics import mean_gap
from unweave.audit.score import t_interval
from unweave.methods import Method
from unweave.methods.lur import LUR
from unweave.problem import Failed
from unweave.run.keeping import kept
from unweave.run.reading import configure
from unweave.run.recipe import Recipe, parse
from unweave.run.record import environment
from unweave.run.search import SECOND, nested
from unweave.run.stage import Stage
from unweave.run.study import Study
from unweave.run.tune import prepare, study
from unweave.train import digest, spend

Row = dict[str, Any]
UNTUNED, SECOND_RETRAIN, ORIGINAL = "lur, as it comes", "a second retrained model", "original"
BEFORE, AT_RATE = "lur, as it came before the study", "lur, at the rate of training"
OTHERS = {"digit-images-conv": ("salun", "msg", "neggrad+", "finetune", "short-retrain")}
"""What else is tuned, where a search costs little."""

RESAMPLES = 10_000

SGD = {"momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.15}
STAGES: Mapping[str, Mapping[str, Any]] = {
    # another model, another batch size, few wrong labels and twice as much to forget
    "digit-images-conv": {
        "data": {"name": "digit-images", "seed": 1, "noise": 0.1, "fraction": 0.2},
        "model": {"name": "conv", "settings": {"size": 8, "width": 8}},
        "train": {"lr": 0.05, "batch": 64, "epochs": 40, **SGD, "weight_decay": 0.0},
        "tuning": {"budget": 0.5},
    },
    # other data, augmented, and a fifth of it
    "cifar10-conv-fifth": {
        "data": {"name": "cifar10", "limit": 2500, "seed": 1, "fraction": 0.2},
        "model": {"name": "conv", "settings": {"channels": 3, "size": 32, "width": 8}},
        "train": {"lr": 0.05, "batch": 128, "epochs": 30, **SGD},
        "tuning": {"budget": 0.4},
    },
    # another width, rate and batch size, and a whole class
    "digits-narrow-class": {
        "data": {"name": "digits", "seed": 1, "forget": "class", "label": 5},
        "model": {"name": "mlp", "settings": {"hidden": 64}},
        "train": {"lr": 0.03, "batch": 32, "epochs": 30, **SGD},
        "tuning": {"budget": 0.4},
    },
    # other images, a net that normalises by batches, and a tenth of them
    "cifar10-resnet-tenth": {
        "data": {"name": "cifar10", "limit": 1500, "seed": 3, "fraction": 0.1},
        "model": {"name": "resnet18", "settings": {"width": 8}},
        "train": {"lr": 0.1, "batch": 128, "epochs": 15, **SGD},
        "tuning": {"budget": 0.4},
    },
    # other images, a wider net in smaller batches, and a whole class
    "cifar10-conv-class": {
        "data": {"name": "cifar10", "limit": 4000, "seed": 2, "forget": "class", "label": 3},
        "model": {"name": "conv", "settings": {"channels": 3, "size": 32, "width": 12}},
        "train": {"lr": 0.02, "batch": 64, "epochs": 20, **SGD},
        "tuning": {"budget": 0.4},
    },
    # data of the study, but other images, a tenth of them with wrong labels, and half of those to forget
    "fashion-mnist-mislabelled": {
        "data": {
            "name": "fashion-mnist",
            "limit": 4000,
            "seed": 5,
            "noise": 0.1,
            "forget": "mislabelled",
            "fraction": 0.05,
        },
        "model": {"name": "conv", "settings": {"width": 6}},
        "train": {"lr": 0.05, "batch": 64, "epochs": 30, **SGD, "weight_decay": 0.0},
        "tuning": {"budget": 0.4},
    },
}


def recipe_of(name: str, cifar10: str | None) -> Recipe:
    """A stage's recipe, whose methods have their defaults."""
    table = STAGES[name]
    data = dict(table["data"])
    return parse(
        {"name": name, **table, "data": data | ({"folder": cifar10} if data["name"] == "cifar10" else {})}
    )


def tuned(stage: Stage, name: str, trials: int) -> Study:
    """The search of a method's settings; read where the folder has it."""
    torch.set_num_threads(1)
    for seed in stage.recipe.tuning.seeds:
        prepare(stage, seed)
    return study((stage,), name, trials)


def measured(stage: Stage, methods: Mapping[str, Method], seed: int) -> list[Row]:
    """Every method on one seed, the original and a second retrained model; kept in the folder."""
    torch.set_num_threads(1)
    place = stage.folder / "rows" / stage.recipe.name / str(seed)
    key = digest({"recipe": repr(stage.recipe), "methods": repr(methods), "seed": seed})
    return kept(place, key, lambda: {"rows": rows_of(stage, methods, seed)})["rows"]


def rows_of(stage: Stage, methods: Mapping[str, Method], seed: int) -> list[Row]:
    """The same, made."""
    exam = stage.exam()
    trained = {seed: stage.trained("retain", seed), SECOND + seed: stage.trained("retain", SECOND + seed)}
    reference, second = (exam.answers(each.model) for each in trained.values())
    original = stage.trained("mixed", seed).model
    found: list[tuple[str, Any, int]] = [
        (SECOND_RETRAIN, second, trained[seed].cost.gradients),
        (ORIGINAL, exam.answers(original), 0),
    ]
    rows: list[Row] = []
    for name, method in methods.items():
        problem = stage.problem(original, seed, {})
        try:
            cost = spend(problem, method)
            found.append((name, exam.answers(problem.model), cost.gradients))
        except (ValueError, Failed) as error:
            rows.append({"seed": seed, "method": name, "failed": str(error)})
    wanted = exam.measure(reference, reference)
    for name, answers, gradients in found:
        values = exam.measure(answers, reference)
        apart = {key: values[key] - wanted[key] for key in ("ua", "ra", "ta", "mia", "auc")}
        gap = {"gap": mean_gap(values, wanted), "tv": values["tv"], "gradient_evaluations": gradients}
        rows.append({"seed": seed, "method": name, **gap, **apart, "failed": None})
    return rows


def experiment(
    names: Sequence[str],
    cifar10: str | None,
    folder: Path,
    *,
    seeds: int,
    trials: int,
    jobs: int,
) -> Row:
    """The whole record."""
    stages: Row = {}
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for name in names:
            recipe = recipe_of(name, cifar10)
            stage = Stage(recipe, folder)
            searched = ("lur", *OTHERS.get(name, ()))
            work = {each: pool.submit(tuned, stage, each, trials) for each in searched}
            studies = {each: job.result() for each, job in work.items()}
            methods = {**untuned(recipe), **best_methods(recipe, studies)}
            taken = [pool.submit(measured, stage, methods, seed) for seed in recipe.seeds[:seeds]]
            rows = [row for job in taken for row in job.result()]
            stages[name] = {
                "recipe": told(recipe),
                "methods": {each: repr(method) for each, method in methods.items()},
                "summary": summary(rows),
                "runs": rows,
                "search": {each: found.trials for each, found in studies.items()},
            }
    return {
        "question": (__doc__ or "").splitlines()[0],
        "trials": trials,
        "environment": environment(),
        "stages": stages,
    }


def told(recipe: Recipe) -> Row:
    """What a record says of a recipe; where its data lies is nobody's business."""
    table = {key: recipe.table()[key] for key in ("data", "model", "train", "tuning")}
    return {**table, "data": {key: value for key, value in table["data"].items() if key != "folder"}}


def untuned(recipe: Recipe) -> dict[str, Method]:
    """LUR with its defaults, those at the rate of the recipe's training, and those of before."""
    now = recipe.methods["lur"]
    assert isinstance(now, LUR)
    before = replace(LUR(), how=replace(LUR().how, weight_decay=now.how.weight_decay))
    return {UNTUNED: now, AT_RATE: replace(now, how=replace(now.how, lr=recipe.train.lr)), BEFORE: before}


def best_methods(recipe: Recipe, studies: Mapping[str, Study]) -> dict[str, Method]:
    """The methods with the best settings found."""
    return {
        f"{name}, tuned": configure(recipe.methods[name], nested(found.best))
        for name, found in studies.items()
        if found.best
    }


def summary(rows: Sequence[Row]) -> Row:
    """Of each method: means over seeds with 95 % t intervals; and what is lost by not tuning LUR."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    table = {name: of_method(found) for name, found in by_method.items()}
    untuned, searched = (
        {row["seed"]: row for row in by_method[name] if row["failed"] is None}
        for name in (UNTUNED, "lur, tuned")
    )
    both = sorted(set(untuned) & set(searched))
    pairs = {key: [(untuned[seed][key], searched[seed][key]) for seed in both] for key in ("gap", "tv")}
    return {"methods": table, "untuned over tuned": {key: ratio(each) for key, each in pairs.items()}}


def of_method(rows: Sequence[Row]) -> Row:
    """The figures of one method."""
    done = [row for row in rows if row["failed"] is None]
    if not done:
        return {"failed": rows[0]["failed"]}
    keys = ("gap", "tv", "ua", "ra", "ta", "mia", "auc", "gradient_evaluations")
    values = {key: [float(row[key]) for row in done] for key in keys}
    means = {
        key: {"mean": float(np.mean(each)), "interval": t_interval(each)} for key, each in values.items()
    }
    return {**means, "seeds": len(done), "failed": len(rows) - len(done)}


def ratio(pairs: Sequence[tuple[float, float]]) -> Row:
    """The ratio of two means over seeds, and its 95 % interval over resampled seeds."""
    table = np.array(pairs)
    draws = np.random.default_rng(0).integers(len(table), size=(RESAMPLES, len(table)))
    resampled = table[draws].mean(1)
    known = resampled[resampled[:, 1] > 0]  # a tuned method may be at no distance on all that was drawn
    above, below = table.mean(0)
    low, high = np.percentile(known[:, 0] / known[:, 1], [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    found = {"ratio": above / below if below else np.nan, "low": low, "high": high}
    return {
        **{key: float(each) if np.isfinite(each) else None for key, each in found.items()},
        "difference": float(above - below),
        "resampled": len(known) / RESAMPLES,
        "seeds": len(table),
    }


def printed(record: Row) -> str:
    """The tables of a record in Markdown."""
    lines: list[str] = []
    for name, stage in record["stages"].items():
        lines += [
            f"\n**{name}**\n",
            "| | mean gap | TV on F | AUC | gradient evaluations |",
            "|---|---|---|---|---|",
        ]
        for method, each in stage["summary"]["methods"].items():
            cells = [each["failed"]] if "gap" not in each else [said(each["gap"]), said(each["tv"], 3)]
            if "gap" in each:
                cells += [said(each["auc"], 3), f"{each['gradient_evaluations']['mean']:.0f}"]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        for key, each in stage["summary"]["untuned over tuned"].items():
            numbers = ", ".join(f"{name} {value:.2f}" for name, value in each.items() if value is not None)
            lines.append(f"\nLUR as it comes over LUR tuned, {key}: {numbers}")
    return "\n".join(lines)


def said(score: Mapping[str, Any], digits: int = 2) -> str:
    """A mean with its interval."""
    low, high = score["interval"]
    return f"{score['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--stages", nargs="+", default=list(STAGES), choices=list(STAGES), help="which stages"
    )
    parser.add_argument("--cifar10", help="the folder of CIFAR-10")
    parser.add_argument("--seeds", type=int, default=5, help="how many training seeds")
    parser.add_argument("--trials", type=int, default=20, help="trials per method")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument(
        "--work", type=Path, help="a folder for models and searches, from which a run goes on"
    )
    parser.add_argument("--record", type=Path, help="a file for everything that was measured")
    parser.add_argument("--read", type=Path, help="a record to show instead of a run")
    asked = parser.parse_args()
    if asked.read:
        record = json.loads(asked.read.read_text())
    else:
        with TemporaryDirectory() as made:
            folder, how = asked.work or Path(made), {"seeds": asked.seeds, "trials": asked.trials}
            record = experiment(asked.stages, asked.cifar10, folder, **how, jobs=asked.jobs)
    print(printed(record))
    if asked.record:
        asked.record.write_text(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

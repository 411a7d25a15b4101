"""Do the default settings hold where nothing was chosen? Candidates on known stages, one judged on others.

    python benchmarks/defaults.py choose --record records/defaults.json
    python benchmarks/defaults.py judge --cifar10 FOLDER --fashion-mnist FOLDER --record records/defaults.json

With `judge-again` in place of `judge` it judges on the stages of the second round, in `JUDGED_AGAIN`. The
candidate of that round is in the record, and no longer in the code.

Candidates differ in the settings of `lur:recover`. They run on cuts and training seeds that no recipe
reports. The stages in `JUDGED` were written down before anything was run on them. There the defaults must not
FAIL where a retrain at equal cost does not: `short-retrain`, the stage's own training with the same number of
gradient evaluations and its schedule to fit. Where an audit has power, the row `retrain` passes.

The folder keeps models and cells, and the same command goes on where it was stopped.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compact import write_compact
from frontier import print_progress

from unweave.bench.bench import bench
from unweave.bench.recipe import Recipe, load, parse
from unweave.methods import DEFAULT
from unweave.record.compact import read_record
from unweave.report.numbers import number

Row = dict[str, Any]
Table = Mapping[str, Any]
SEEDS = {"seeds": list(range(2000, 2010)), "calibration_seeds": list(range(2100, 2112))}
"""Seeds of training on which candidates are compared."""

CUT = 3
"""The seed of the data on which candidates are compared; recipes report another."""

STUDY: Mapping[str, tuple[str, Table]] = {
    "digits-trace": ("digits-trace", {}),
    "digits-clean": ("digits-clean", {}),
    "digits-class": ("digits-class", {"label": 5}),
    "digits-mislabelled": ("digits-trace", {"noise": 0.1, "forget": "mislabelled", "fraction": 0.05}),
}
"""Stages that candidates run on: a recipe, and what is changed of its data."""

SGD = {"momentum": 0.9, "schedule": "cosine", "warmup": 0.15}


def settings(forget: object, weight: object, steps: int, epochs: int, *, lr: float = 0.4) -> Table:
    """Settings of `lur:recover`."""
    how = {"lr": lr, "steps": steps, "schedule": "constant", "warmup": 0.05}
    recovery = {"lr": 0.3, "epochs": epochs, "schedule": "cosine"}
    lur = {"forget": forget, "weight": weight, "how": how}
    return {"lur": lur, "recover": {"until": "none", "how": recovery}}


BEFORE = {
    "lur": {
        "forget": {"kind": "clamped", "cap": 4.0},
        "weight": {"kind": "ratio", "times": 0.3},
        "how": {"lr": 0.1, "steps": 60, "schedule": "cosine", "warmup": 0.05},
    },
    "recover": {
        "until": {"near": 1.0},
        "how": {"lr": 0.1, "epochs": 30, "schedule": "constant"},
    },
}
"""The defaults before this study."""

CANDIDATES: Mapping[str, Table] = {
    "before": BEFORE,
    "clamped at 4": settings({"kind": "clamped", "cap": 4.0}, 1.0, 30, 10),
    "level": settings("level", 1.0, 30, 10),
    "unseen, 30 steps, 10 epochs": settings("unseen", 1.0, 30, 10),
    "unseen, 30 steps, 15 epochs": settings("unseen", 1.0, 30, 15),
    "unseen, 40 steps, 15 epochs": settings("unseen", 1.0, 40, 15),
}

JUDGED: Mapping[str, Table] = {
    # other data, and a net that normalises by batches, which the study has none of
    "cifar10-1500-random10": {
        "data": {"name": "cifar10", "limit": 1500, "seed": 4, "fraction": 0.1, "augment": False},
        "model": {"name": "resnet18", "settings": {"width": 4, "stem": 2}},
        "train": {"lr": 0.1, "batch": 128, "epochs": 30, **SGD, "weight_decay": 5e-4},
    },
    # other data, a convolutional net in small batches, and half of the wrong labels
    "fashion-mnist-4000-mislabelled": {
        "data": {
            "name": "fashion-mnist",
            "limit": 4000,
            "seed": 6,
            "noise": 0.1,
            "forget": "mislabelled",
            "fraction": 0.05,
        },
        "model": {"name": "conv", "settings": {"width": 6}},
        "train": {"lr": 0.05, "batch": 64, "epochs": 30, **SGD, "weight_decay": 0.0},
    },
    # three times as much to forget, half of the wrong labels, half of the width
    "digits-noisy-random30": {
        "data": {"name": "digits", "seed": 4, "noise": 0.1, "fraction": 0.3},
        "model": {"name": "mlp", "settings": {"hidden": 256}},
        "train": {"lr": 0.1, "batch": 64, "epochs": 40, **SGD, "weight_decay": 0.0},
    },
    # another digit, half of the width, another rate and batch size
    "digits-eights": {
        "data": {"name": "digits", "seed": 4, "forget": "class", "label": 8},
        "model": {"name": "mlp", "settings": {"hidden": 256, "bottleneck": 16}},
        "train": {"lr": 0.05, "batch": 64, "epochs": 40, **SGD, "weight_decay": 5e-4},
    },
}
"""The first round: written down before anything was run on them."""

JUDGED_AGAIN: Mapping[str, Table] = {
    # a net that overfits: few images, and no normalisation
    "cifar10-2000-conv-random20": {
        "data": {"name": "cifar10", "limit": 2000, "seed": 14, "fraction": 0.2, "augment": False},
        "model": {"name": "conv", "settings": {"channels": 3, "size": 32, "width": 8, "hidden": 64}},
        "train": {"lr": 0.05, "batch": 50, "epochs": 25, "schedule": "linear", "warmup": 0.1},
    },
    # batch normalisation in small batches, few images, a fifth of the labels wrong
    "digit-images-800-noisy-random15": {
        "data": {"name": "digit-images", "limit": 800, "seed": 15, "noise": 0.2, "fraction": 0.15},
        "model": {"name": "resnet18", "settings": {"channels": 1, "width": 6}},
        "train": {"lr": 0.05, "batch": 40, "epochs": 20, **SGD, "weight_decay": 1e-4},
    },
    # a class that others resemble, in a convolutional net that is narrow before its head
    "fashion-mnist-2500-coats": {
        "data": {"name": "fashion-mnist", "limit": 2500, "seed": 16, "forget": "class", "label": 4},
        "model": {"name": "conv", "settings": {"width": 8, "hidden": 32, "bottleneck": 16}},
        "train": {"lr": 0.1, "batch": 100, "epochs": 25, **SGD, "weight_decay": 5e-4},
    },
    # a third of the wrong labels, a quarter of the recipe's width, trained by Adam
    "digits-adam-mislabelled": {
        "data": {"name": "digits", "seed": 17, "noise": 0.15, "forget": "mislabelled", "fraction": 0.05},
        "model": {"name": "mlp", "settings": {"hidden": 128}},
        "train": {"lr": 0.003, "batch": 32, "epochs": 40, "optimizer": "adam", "schedule": "cosine"},
    },
}
"""The second round: written down before anything was run on them."""


def candidates() -> Iterator[Recipe]:
    """Every stage of the study with every candidate."""
    for stage, (recipe, data) in STUDY.items():
        table = load(recipe).table()
        for name, settings in CANDIDATES.items():
            split_table = {**table["data"], **data, "seed": CUT}
            changes = {"name": f"{stage}, {name}", "data": split_table, "methods": {DEFAULT: settings}}
            yield parse({**table, **SEEDS, **changes})


def judging_recipes(stages: Mapping[str, Table], folders: Mapping[str, str | None]) -> Iterator[Recipe]:
    """The stages that judge the defaults; their methods have default settings."""
    for name, table in stages.items():
        data = {**table["data"], "folder": folders.get(table["data"]["name"])}
        yield parse({**table, "name": name, "data": data})


def run(recipe: Recipe, arguments: argparse.Namespace, *methods: str) -> Row:
    """A stage of a record; a retrain gets as many gradient evaluations as the defaults took."""
    content = bench([recipe], arguments.folder, methods=methods, jobs=arguments.jobs, listener=print_progress)
    (stage,) = content["stages"].values()
    if "short-retrain" in methods or len(methods) == 1:
        return {**stage, "environment": content["environment"]}
    share = stage["methods"][DEFAULT]["gradient_evaluations"] / stage["reference"]["gradient_evaluations"]
    return run(recipe.with_budget(min(1.0, share)), arguments, *methods, "short-retrain")


def compact(stage: Row) -> Row:
    """A stage without what only a page draws: each number once, with four digits."""
    total = stage["reference"]["gradient_evaluations"]
    return {
        "gradient_evaluations_of_a_retraining": total,
        "margins": {name: short(each) for name, each in stage["margins"].items()},
        "floor": short(stage["floor"]),
        "methods": {name: row_of(row, total) for name, row in stage["methods"].items()},
    }


def row_of(row: Row, total: float) -> Row:
    """A method: its verdict, its gap, every mean less the retrained models', and its cost."""
    facts = {key: row[key] for key in ("repr", "verdict", "reason")}
    facts |= {"share": short(row["gradient_evaluations"] / total), "share_of_seconds": short(row["cost"])}
    if row["failed"] is not None:
        return facts
    gap = {key: short(row["gap"][key]) for key in ("mean", "low", "high")}
    gaps = {name: short(score["gap"]) for name, score in row["scores"].items() if score["gap"] is not None}
    return {**facts, "gap": gap, "apart": gaps, "gaps": [short(each) for each in row["per_seed"]["gap"]]}


def short(value: float) -> float:
    """A number with four digits."""
    return float(f"{value:.4g}")


def keep(part: str, results: Row, arguments: argparse.Namespace) -> None:
    """Prints a row of a part, and puts it into the record."""
    rows = results["rows"]
    for name, row in rows.items():
        for method, each in row["methods"].items():
            gap = number(each["gap"]["mean"]) if "gap" in each else "-"
            print(f"{name:44} {method:14} {each['share']:5.2f} {gap:>6} {each['reason'][:90]}")
    if arguments.record:
        before = read_record(arguments.record) if arguments.record.exists() else {}
        record = {"question": (__doc__ or "").splitlines()[0], **before, part: results}
        write_compact(record, arguments.record)


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("choose", "judge", "judge-again"))
    parser.add_argument("--cifar10", help="the folder of CIFAR-10")
    parser.add_argument("--fashion-mnist", help="the folder of Fashion-MNIST")
    parser.add_argument("--jobs", type=int)
    parser.add_argument(
        "--folder", type=Path, default=Path("unweave-defaults"), help="keeps models and cells"
    )
    parser.add_argument("--record", type=Path, help="the file that the rows are written to")
    arguments = parser.parse_args()
    if arguments.part == "choose":
        stages = {recipe.name: run(recipe, arguments, DEFAULT) for recipe in candidates()}
    else:
        folders = {"cifar10": arguments.cifar10, "fashion-mnist": arguments.fashion_mnist}
        recipes = judging_recipes(JUDGED if arguments.part == "judge" else JUDGED_AGAIN, folders)
        stages = {each.name: run(each, arguments, DEFAULT, "retrain") for each in recipes}
    rows = {name: compact(stage) for name, stage in stages.items()}
    keep(arguments.part, {"environment": next(iter(stages.values()))["environment"], "rows": rows}, arguments)


if __name__ == "__main__":
    main()

"""Which method makes a denoiser forget a class as retraining would, keeps the rest, and resists attacks?

    python benchmarks/erase.py fashion-mnist --tune 20 --record records/erase-fashion-mnist.json
    python benchmarks/erase.py fashion-mnist-ablations --record records/erase-fashion-mnist-ablations.json
    python benchmarks/erase.py digits --tune 20 --record records/erase-digits.json
    python benchmarks/erase.py digits-defaults --record records/erase-digits-defaults.json
    python benchmarks/erase.py digits-higher-rate --record records/erase-digits-higher-rate.json
    python benchmarks/erase.py digits-without-lookahead --record records/erase-digits-without-lookahead.json
    python benchmarks/erase.py cifar10 --tune 4 --device cuda --jobs 1 --record records/cifar10-images.json
    python benchmarks/erase.py cifar10-partial --jobs 1 --record records/cifar10-images-partial.json

Classes are forgotten in turn, with one setting per method for all of them: that of the recipe, or, where both
a search and a record are asked for, what is found. CIFAR-10 is read from the folder that its recipe names,
seen from where the command is run; its first command is for a GPU, and the second shows the path on a CPU and
measures nothing. The digits' settings are searched on two of them, on a seed that is not reported; those of
Fashion-MNIST on a class and a seed that are not. `erase_methods.py` says what is searched; a search sees how
soon a class is relearned. Originals are trained once per seed, and a retrained model per seed and class;
`erase_retrained.py` trains more.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from compact import drop_pictures, write_compact
from erase_methods import (
    DEFAULTS,
    HIGHER_RATE,
    METHODS,
    ablations,
    space_of,
    starting_recipe,
    with_defaults,
    without_lookahead,
)
from frontier import print_progress

from unweave.bench.bench import compare, select_methods
from unweave.bench.recipe import Recipe, load
from unweave.bench.stage import Stage
from unweave.bench.study import REFERENCES, Study
from unweave.bench.tune import as_toml, prepare, study
from unweave.bench.workers import Job, run_jobs, workers
from unweave.record import record

FEW = ("lur", "joint", "salun", "sa", "esd")


@dataclass(frozen=True)
class Plan:
    """A part of the study.

    Args:
        recipe: The recipe of the model.
        classes: The classes to forget, one at a time.
        methods: The methods; all of the changed recipe if None.
        tuned_on: The classes that settings are searched on.
        settings: Changes the recipe, and leaves the pictures out of the record; the recipe as it is if None.
    """

    recipe: str
    classes: Sequence[int]
    methods: Sequence[str] | None = METHODS
    tuned_on: Sequence[int] = (3, 8)
    settings: Callable[[Recipe], Recipe] | None = None


PLANS = {
    "digits": Plan("digit-images-class", range(10)),
    "digits-defaults": Plan(
        "digit-images-class",
        (0, 1, 2, 4),
        tuple(DEFAULTS),
        settings=partial(with_defaults, changes=DEFAULTS),
    ),
    "digits-higher-rate": Plan(
        "digit-images-class",
        (0, 1, 2, 4),
        tuple(HIGHER_RATE),
        settings=partial(with_defaults, changes=HIGHER_RATE),
    ),
    "digits-without-lookahead": Plan(
        "digit-images-class", range(10), ("lur-lagged", "joint"), settings=without_lookahead
    ),
    # T-shirt, sandal and bag, searched on dresses
    "fashion-mnist": Plan("fashion-mnist-images-class", (0, 5, 8), tuned_on=(3,)),
    "fashion-mnist-ablations": Plan("fashion-mnist-images-class", (0, 5, 8), None, settings=ablations),
    # airplane and horse, and then bird, deer, frog and truck
    "cifar10": Plan("cifar10-images-class", (0, 7, 2, 4, 6, 9), FEW, (0, 7)),
    "cifar10-partial": Plan("cifar10-images-partial", (0,), FEW, (0, 7)),
}


def load_planned(plan: Plan) -> Recipe:
    """The recipe of a plan with its settings."""
    recipe = load(plan.recipe)
    return recipe if plan.settings is None else plan.settings(recipe)


def class_stages(
    plan: Plan, labels: Sequence[int], folder: Path, device: str, *, start: bool = False
) -> list[Stage]:
    """A stage per class that is forgotten, with the recipe's settings or those at which searches start."""
    recipe = load_planned(plan)
    recipe = replace(recipe, tuning=replace(recipe.tuning, against="retrain", begin="recipe"))
    if start and plan.settings is None:
        recipe = starting_recipe(recipe)
    by_label = {label: replace(recipe, name=f"{recipe.name}-{label}") for label in labels}
    recipes = [replace(each, data=replace(each.data, label=label)) for label, each in by_label.items()]
    return [Stage(each, folder, device) for each in recipes]


def tune_methods(stages: Sequence[Stage], methods: Sequence[str], trials: int, jobs: int) -> dict[str, Study]:
    """The searches of methods over the classes of `stages`; trainings from scratch have none."""
    recipe, seed = stages[0].recipe, stages[0].recipe.tuning.seeds[0]
    spaces = {name: space_of(recipe, name) for name in methods if name not in REFERENCES}
    work = [
        Job(f"{trials} trials of {name}", study, (stages, name, trials, space))
        for name, space in spaces.items()
        if space
    ]
    original = Job(f"original {seed}", train, (stages[0], "mixed", seed, seed))
    with workers(jobs) as crew:
        list(run_jobs(crew, [original], print_progress))
        list(
            run_jobs(crew, [Job(each.recipe.name, prepare, (each, seed)) for each in stages], print_progress)
        )
        return {job.arguments[1]: result for job, result in run_jobs(crew, work, print_progress)}


def train(stage: Stage, part: Literal["mixed", "retain"], seed: int, tuning_seed: int) -> None:
    """Trains a model, which its stage keeps."""
    stage.load_or_train(part, seed, tuning_seed)


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", choices=PLANS)
    parser.add_argument("--out", type=Path, default=Path("unweave-erase"), help="keeps models and cells")
    parser.add_argument("--record", type=Path, help="where the record is written to, in its compact form")
    parser.add_argument(
        "--tune", type=int, default=0, help="trials per method; without --record no more is done"
    )
    parser.add_argument("--methods", help="names with commas between them; by default those of the data set")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where the models are; with cuda --jobs 1 is best")
    arguments = parser.parse_args()
    plan, out, device = PLANS[arguments.data], arguments.out, arguments.device
    names = arguments.methods.split(",") if arguments.methods else plan.methods
    methods = select_methods(load_planned(plan), names)
    studies: dict[str, Study] = {}
    if arguments.tune:
        search_stages = class_stages(plan, plan.tuned_on, out, device, start=True)
        studies = tune_methods(search_stages, methods, arguments.tune, arguments.jobs)
        print(as_toml(studies, search_stages[0].recipe.tuning.seeds))
    if arguments.record or not studies:
        stages = class_stages(plan, plan.classes, out, device, start=bool(studies))
        compare(stages, out, methods=names, jobs=arguments.jobs, studies=studies, listener=print_progress)
    if arguments.record:
        results = record.load(out)
        write_compact(drop_pictures(results) if plan.settings else results, arguments.record)


if __name__ == "__main__":
    main()

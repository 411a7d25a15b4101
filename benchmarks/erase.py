"""Which method makes a denoiser forget a class as retraining would, keeps the rest, and resists attacks?

    python benchmarks/erase.py digits --record records/erase-digits.json
    python benchmarks/erase.py fashion-mnist --record records/erase-fashion-mnist.json
    python benchmarks/erase.py digits --tune 8                  # how the settings of the recipe were found

Every class is forgotten in turn, with one setting per method for all of them: that of the recipe. The digits'
were searched on two of them, on a seed that is not reported, with as many trials and the same range of steps
for each method; a step is one update, whatever it costs, and what a method does before or after its steps
comes on top. Originals are trained once per seed, and a retrained model per seed and class.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from unweave.methods.space import Log, Range, Uniform, Whole
from unweave.run import record
from unweave.run.bench import bench
from unweave.run.cell import kept
from unweave.run.recipe import Recipe, load
from unweave.run.search import SECOND, Case, Trial, case, search
from unweave.run.stage import Stage
from unweave.run.tune import Study, as_toml, best_of
from unweave.run.workers import Job, Progress, told, workers
from unweave.train import code, digest

RECIPES = {"digits": "digit-images-class", "fashion-mnist": "fashion-mnist-images-class"}
CLASSES: Mapping[str, Sequence[int]] = {"digits": range(10), "fashion-mnist": (0, 5, 8)}
TUNED_ON = (3, 8)
METHODS = ("lur", "lur-exact", "lur-match", "joint", "salun", "sa", "esd", "scissorhands")
METHODS += ("finetune", "short-retrain")

DESCENT: Mapping[str, Range] = {"how.lr": Log(3e-5, 1e-3), "how.steps": Whole(30, 150)}
"""What every search chooses from, beside what is the method's own."""

LUR: Mapping[str, Range] = {"alpha": Log(1e-3, 1e-1), "weight": Log(0.03, 3.0)}

OWN: Mapping[str, Mapping[str, Range]] = {
    "lur": LUR,
    "lur-exact": LUR,
    "lur-match": LUR,
    "joint": {"weight": Log(0.03, 3.0)},
    "salun": {"fraction": Uniform(0.1, 0.9), "retain_weight": Log(0.3, 30.0)},
    "sa": {"pull": Log(10.0, 1e6), "retain_weight": Log(0.3, 10.0)},
    "esd": {"eta": Uniform(0.3, 3.0)},
    "scissorhands": {"trim": Log(1e-4, 0.1), "forget_weight": Log(0.03, 3.0)},
    "finetune": {},
}


def staged(name: str, folder: Path, labels: Sequence[int]) -> list[Stage]:
    """A stage per class that is forgotten."""
    recipe = load(RECIPES[name])
    return [Stage(forgetting(recipe, label), folder) for label in labels]


def forgetting(recipe: Recipe, label: int) -> Recipe:
    """The recipe, to forget one class."""
    return replace(recipe, name=f"{recipe.name}-{label}", data=replace(recipe.data, label=label))


def searched(name: str, method: str, trials: int, folder: Path) -> Study:
    """The settings of one method, over the classes that settings are searched on; a search is kept."""
    recipe, space = load(RECIPES[name]), {**DESCENT, **OWN[method]}
    chosen = recipe.methods[method]
    facts = {"recipe": repr((recipe, chosen)), "space": repr(space), "trials": trials, "on": TUNED_ON}

    def make() -> Mapping[str, Sequence[Trial]]:
        return {"trials": search(chosen, space, trials, cases_of(name, folder))}

    place = folder / "tuning" / name / method
    return best_of(kept(place, digest({**facts, "code": code("**/*.py")}), make)["trials"])


def cases_of(name: str, folder: Path) -> list[Case]:
    """One seed of two classes."""
    return [case(each, each.recipe.tuning.seeds[0]) for each in staged(name, folder, TUNED_ON)]


def tuned(name: str, methods: Sequence[str], trials: int, folder: Path, jobs: int) -> str:
    """The settings of methods, as the tables of a recipe; who is granted what LUR spends has none."""
    names = [each for each in methods if each != "short-retrain"]
    with workers(jobs) as crew:
        list(told(crew, models(name, folder), say))
        work = [Job(each, searched, (name, each, trials, folder)) for each in names]
        studies = {job.arguments[1]: study for job, study in told(crew, work, say)}
    return as_toml({each: studies[each] for each in names}, load(RECIPES[name]).tuning.seeds[:1])


def models(name: str, folder: Path) -> list[Job]:
    """The trainings that the cases of a search need."""
    first, *others = staged(name, folder, TUNED_ON)
    (seed, *_) = first.recipe.tuning.seeds
    wanted = [(first, "mixed", seed)]
    wanted += [(each, "retain", at) for each in (first, *others) for at in (seed, SECOND + seed)]
    return [Job(f"{part} {at}", train, (each, part, at, seed)) for each, part, at in wanted]


def train(stage: Stage, part: Literal["mixed", "retain"], seed: int, data_seed: int) -> None:
    """Trains a model, which its stage keeps."""
    stage.trained(part, seed, data_seed)


def say(progress: Progress) -> None:
    """Says which piece of work is done."""
    print(f"{progress.done}/{progress.total}  {progress.label}", flush=True)


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", choices=RECIPES)
    parser.add_argument("--out", type=Path, default=Path("unweave-erase"), help="keeps models and cells")
    parser.add_argument("--record", type=Path, help="where the record is copied to")
    parser.add_argument("--tune", type=int, default=0, help="trials per method; then nothing else is done")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    methods = given.methods.split(",")
    if given.tune:
        print(tuned(given.data, methods, given.tune, given.out, given.jobs))
        return
    recipes = [stage.recipe for stage in staged(given.data, given.out, CLASSES[given.data])]
    made = bench(recipes, given.out, methods=methods, jobs=given.jobs, listener=say)
    if given.record:
        given.record.write_bytes((given.out / record.FILE).read_bytes())
    print(f"{len(made['stages'])} stages in {given.out}")


if __name__ == "__main__":
    main()

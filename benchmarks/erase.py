"""Which method makes a denoiser forget a class as retraining would, keeps the rest, and resists attacks?

    python benchmarks/erase.py digits --record records/erase-digits.json
    python benchmarks/erase.py fashion-mnist --record records/erase-fashion-mnist.json
    python benchmarks/erase.py digits --tune 6                  # how the settings of the recipe were found
    python benchmarks/erase.py cifar10 --tune 4 --device cuda --jobs 1 --record records/cifar10-images.json
    python benchmarks/erase.py cifar10-partial --jobs 1 --record records/cifar10-images-partial.json

Classes are forgotten in turn, with one setting per method for all of them: that of the recipe, or, where both
a search and a record are asked for, what is found. CIFAR-10 is read from the folder that its recipe names,
seen from where the command is run; its first command is for a GPU, and the second shows the path on a CPU and
measures nothing. The digits' settings were searched on two of them, on a seed that is not reported, with as
many trials and the same range of steps for each method; a step is one update, whatever it costs, and what a
method does before or after its steps comes on top. Originals are trained once per seed, and a retrained model
per seed and class.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from unweave.methods.space import Log, Range, Uniform, Whole
from unweave.run import record
from unweave.run.bench import bench, with_best
from unweave.run.cell import kept
from unweave.run.recipe import Recipe, load
from unweave.run.search import SECOND, Case, Trial, case, search
from unweave.run.stage import Stage
from unweave.run.tune import Study, as_toml, best_of
from unweave.run.workers import Job, Progress, told, workers
from unweave.train import code, digest

METHODS = ("lur", "lur-exact", "lur-match", "joint", "salun", "sa", "esd", "scissorhands")
METHODS += ("finetune", "short-retrain")
FEW = ("lur", "joint", "salun", "sa", "esd")
SHORT = Whole(30, 150)


@dataclass(frozen=True)
class Plan:
    """What is forgotten of a data set.

    Args:
        recipe: What is trained.
        classes: Those that are forgotten in turn.
        methods: By what.
        tuned_on: The classes that settings are searched on.
        steps: What a search chooses the number of steps from.
    """

    recipe: str
    classes: Sequence[int]
    methods: Sequence[str] = METHODS
    tuned_on: Sequence[int] = (3, 8)
    steps: Whole = SHORT


PLANS = {
    "digits": Plan("digit-images-class", range(10)),
    # T-shirt, sandal and bag, searched on dresses; one seed shows by a further retraining what two differ by
    "fashion-mnist": Plan("fashion-mnist-images-class", (0, 5, 8), (*METHODS, "retrain"), (3,)),
    # airplane and horse, and then bird, deer, frog and truck
    "cifar10": Plan("cifar10-images-class", (0, 7, 2, 4, 6, 9), FEW, (0, 7), Whole(100, 1000)),
    "cifar10-partial": Plan("cifar10-images-partial", (0,), FEW, (0, 7), Whole(2, 8)),
}

RATE = Log(3e-5, 1e-3)
"""What every search chooses from, beside the steps and what is the method's own."""

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


@dataclass(frozen=True)
class Place:
    """Where a benchmark is run.

    Args:
        data: A key of `PLANS`.
        folder: Keeps models, cells and searches.
        device: Where the models are.
    """

    data: str
    folder: Path
    device: str

    @property
    def plan(self) -> Plan:
        """What is forgotten."""
        return PLANS[self.data]

    def stages(self, labels: Sequence[int]) -> list[Stage]:
        """A stage per class that is forgotten."""
        recipe = load(self.plan.recipe)
        return [Stage(forgetting(recipe, label), self.folder, self.device) for label in labels]


def forgetting(recipe: Recipe, label: int) -> Recipe:
    """The recipe, to forget one class."""
    return replace(recipe, name=f"{recipe.name}-{label}", data=replace(recipe.data, label=label))


def searched(place: Place, method: str, trials: int) -> Study:
    """The settings of one method, over the classes that settings are searched on; a search is kept."""
    plan = place.plan
    recipe, space = load(plan.recipe), {"how.lr": RATE, "how.steps": plan.steps, **OWN[method]}
    chosen = recipe.methods[method]
    facts = {"recipe": repr((recipe, chosen)), "space": repr(space), "trials": trials, "on": plan.tuned_on}

    def make() -> Mapping[str, Sequence[Trial]]:
        return {"trials": search(chosen, space, trials, cases_of(place))}

    file = place.folder / "tuning" / place.data / method
    return best_of(
        kept(file, digest({**facts, "device": place.device, "code": code("**/*.py")}), make)["trials"]
    )


@cache
def cases_of(place: Place) -> list[Case]:
    """One seed of two classes."""
    return [case(each, each.recipe.tuning.seeds[0]) for each in place.stages(place.plan.tuned_on)]


def tuned(place: Place, methods: Sequence[str], trials: int, jobs: int) -> dict[str, Study]:
    """The searches of those methods that have something to search."""
    names = [each for each in methods if each in OWN]
    with workers(jobs) as crew:
        list(told(crew, models(place), say))
        work = [Job(each, searched, (place, each, trials)) for each in names]
        studies = {job.arguments[1]: study for job, study in told(crew, work, say)}
    return {each: studies[each] for each in names}


def models(place: Place) -> list[Job]:
    """The trainings that the cases of a search need."""
    first, *others = place.stages(place.plan.tuned_on)
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


def recorded(place: Place, methods: Sequence[str], studies: Mapping[str, Study], jobs: int) -> None:
    """Forgets every class with the settings found; the record, with the searches, is in the folder."""
    recipes = [with_best(stage.recipe, studies) for stage in place.stages(place.plan.classes)]
    made = bench(recipes, place.folder, methods=methods, jobs=jobs, device=place.device, listener=say)
    if studies:
        found = {name: list(study.trials) for name, study in studies.items()}
        made["stages"] = {name: {**stage, "search": found} for name, stage in made["stages"].items()}
        record.write(made, place.folder)
    print(f"{len(made['stages'])} stages in {place.folder}")


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", choices=PLANS)
    parser.add_argument("--out", type=Path, default=Path("unweave-erase"), help="keeps models and cells")
    parser.add_argument("--record", type=Path, help="where the record is copied to")
    parser.add_argument(
        "--tune", type=int, default=0, help="trials per method; without --record no more is done"
    )
    parser.add_argument("--methods", help="names with commas between them; by default those of the data set")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where the models are; with cuda --jobs 1 is best")
    given = parser.parse_args()
    place = Place(given.data, given.out, given.device)
    methods = given.methods.split(",") if given.methods else place.plan.methods
    studies = tuned(place, methods, given.tune, given.jobs) if given.tune else {}
    if studies:
        print(as_toml(studies, load(place.plan.recipe).tuning.seeds[:1]))
    if given.record or not studies:
        recorded(place, methods, studies, given.jobs)
    if given.record:
        given.record.write_bytes((given.out / record.FILE).read_bytes())


if __name__ == "__main__":
    main()

"""What `unweave bench` is asked to run, and how: checked before anything is computed."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unweave.bench.bench import limit_seeds
from unweave.bench.recipe import Recipe
from unweave.bench.setup import Against
from unweave.bench.stage import Stage
from unweave.cli import out
from unweave.report.protocol import Protocol

GROWING = ("seeds", "methods", "budgets")
"""What may be asked for in addition, of a run that is there."""


@dataclass(frozen=True)
class Plan:
    """How recipes are run.

    Args:
        methods: Names with commas between; all if None.
        seeds: How many of the recipes' seeds; all if None.
        tune: Trials of tuning per method; none if None.
        against: What trials forget; as recipes say if None.
        tuned: The folder of earlier searches.
        budgets: What methods may spend, each a stage; as recipes say if None.
        jobs: Worker processes; as many as suit the device if None.
        protocol: The benchmark whose columns are printed in the end; our own if None.
    """

    methods: str | None = None
    seeds: int | None = None
    tune: int | None = None
    against: Against | None = None
    tuned: Path | None = None
    budgets: tuple[float, ...] | None = None
    jobs: int | None = None
    protocol: Protocol | None = None

    def __post_init__(self) -> None:
        if self.tune is not None and self.tune < 1:
            raise ValueError(
                f"--tune must be at least 1 trial, found {self.tune}: leave it out to run recipes' settings"
            )
        if self.tune is not None and self.tuned is not None:
            raise ValueError("--tune makes a search and --tuned takes an earlier one: give one of them")
        if self.against is not None and self.tune is None and self.tuned is None:
            raise ValueError("--against says what a search forgets: give it with --tune or --tuned")
        if self.budgets is not None and not self.searches:
            raise ValueError("--budgets says what a search keeps to: give it with --tune or --tuned")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, found {self.jobs}")
        if self.tune and importlib.util.find_spec("optuna") is None:
            raise ValueError("--tune needs optuna, which is not installed: pip install 'unweave[tune]'")
        if self.tune and importlib.util.find_spec("fcntl") is None:
            raise ValueError(
                "--tune needs POSIX file locks (the module fcntl), which this system lacks: search on Linux "
                "or macOS, and take what was found there with --tuned"
            )
        if self.tuned is not None:
            refuse_no_searches(self.tuned)

    @property
    def searches(self) -> bool:
        """Whether settings are found by a search, by a new one or an earlier."""
        return self.tune is not None or self.tuned is not None

    def facts(self) -> dict[str, object]:
        """What of it a run depends on, as JSON knows it."""
        return {"tune": self.tune or 0, "tuned": None if self.tuned is None else str(self.tuned.resolve())}

    def apply_to(self, recipe: Recipe, first: int | None) -> Recipe:
        """The recipe with the seeds and the tuning that are asked for, the first of its seeds as well."""
        seeds = recipe.seeds if first is None else tuple(range(first, first + len(recipe.seeds)))
        tuning = replace(recipe.tuning, against=self.against or recipe.tuning.against)
        if self.budgets is not None:
            tuning = replace(tuning, budget=None, budgets=self.budgets)
        return limit_seeds(replace(recipe, seeds=seeds, tuning=tuning), self.seeds)

    def refuse_other_families(self, recipes: Sequence[Recipe]) -> None:
        """Raises if a recipe's models are of a family that the protocol has no columns for."""
        for recipe in recipes:
            if self.protocol is not None and recipe.family.name != "classifier":
                found = f"{recipe.name!r}, of family {recipe.family.name!r}"
                raise ValueError(f"--protocol {self.protocol} is for recipes of classifiers, found {found}")


def refuse_no_searches(folder: Path) -> None:
    """Raises where there is no folder, or one that only holds that of the searches."""
    found = f"none at {folder}"
    if (folder / out.CLAIM).is_file():
        found = f"a run itself: name {folder / 'tuning'}"
    elif folder.is_dir():
        return
    raise ValueError(f"--tuned must be the folder 'tuning' of an earlier run, found {found}")


def refuse_unreadable(recipes: Sequence[Recipe], device: str) -> None:
    """Raises if a recipe is named twice, or its data can't be read, cut as it says, or put into its model."""
    known = [recipe.name for recipe in recipes]
    if len(set(known)) < len(known):
        raise ValueError(f"each recipe can be run once, found {', '.join(known)}")
    for recipe in recipes:
        stage = Stage(recipe, Path(), device)
        if (
            stage.has_trained_choice
        ):  # by models that are not trained yet: any other cut shows as well what can be read
            stage = replace(stage, recipe=replace(recipe, data=replace(recipe.data, forget="random")))
        split = stage.split()
        model = recipe.build(split.n_classes).to(device)
        recipe.family.refuse_unfit(model, split.train, recipe.data.name, split.n_classes)


def extends(asked: out.Asked, found: out.Asked) -> bool:
    """Whether the recipes are the same, and nothing that was asked before is missing now."""
    if any(asked[key] != found.get(key) for key in asked if key not in GROWING):
        return False
    longer = zip(asked["seeds"], found["seeds"], strict=True)
    kept = all(now[: len(then)] == then for now, then in longer)
    more = zip(asked["budgets"], found.get("budgets", asked["budgets"]), strict=True)
    kept = kept and all(set(then) <= set(now) and bool(then) == bool(now) for now, then in more)
    return kept and set(found["methods"]) <= set(asked["methods"])

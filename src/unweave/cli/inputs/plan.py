"""The options of `unweave bench`, checked before any computation."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from unweave.audits.attack import Attack
from unweave.bench.attacked_cells import answer_attacks
from unweave.bench.bench import limit_seeds, refuse_repeated_stages
from unweave.bench.database import Database
from unweave.bench.recipe import Recipe
from unweave.bench.setup import Against
from unweave.bench.stage import Stage
from unweave.cli.inputs import out
from unweave.cli.inputs.executor import HERE, Executor
from unweave.families import FAMILIES
from unweave.report.protocol import Protocol

GROWING = ("seeds", "methods", "budgets", "concepts")
"""The facts that a resumed run may extend."""


@dataclass(frozen=True)
class Plan:
    """The options of a run of recipes.

    Args:
        methods: Method names separated by commas; all if None.
        seeds: The number of the recipes' seeds; all if None.
        tune: The number of tuning trials per method; no tuning if None.
        against: The forget set of trials; that of the recipe if None.
        tuned: The folder of earlier searches.
        budgets: The budgets of the methods, one stage each; those of the recipe if None.
        executor: Where the cells run.
        protocol: The benchmark whose columns are printed; our own if None.
        attacks: Attacks on the answers of all models; none if None.
        storage: The URL of a database for the trials; files in the folder of the run if None.
    """

    methods: str | None = None
    seeds: int | None = None
    tune: int | None = None
    against: Against | None = None
    tuned: Path | None = None
    budgets: tuple[float, ...] | None = None
    executor: Executor = HERE
    protocol: Protocol | None = None
    attacks: str | None = None
    storage: str | None = field(default=None, repr=False)  # it may hold a password

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
            raise ValueError(
                "--budgets limits a search: give it with --tune or --tuned, or name recipes that "
                "have settings of a budget, such as digits-trace@0.1"
            )
        answer_attacks(self.attacks or "default")  # raises for an unknown one
        if self.tune and importlib.util.find_spec("optuna") is None:
            raise ValueError("--tune needs optuna, which is not installed: pip install 'unweave[tune]'")
        if self.tune and importlib.util.find_spec("fcntl") is None:
            raise ValueError(
                "--tune needs POSIX file locks (the module fcntl), which this system lacks: search on Linux "
                "or macOS, and use its settings with --tuned"
            )
        if self.storage is not None and self.tune is None:
            raise ValueError("--storage keeps the trials of a search: give it with --tune")
        if self.tuned is not None:
            refuse_no_searches(self.tuned)

    @cached_property
    def choose_attacks(self) -> tuple[Attack, ...]:
        """The attacks."""
        return () if self.attacks is None else answer_attacks(self.attacks)

    @cached_property
    def database(self) -> Database | None:
        """The database of the trials; None without one.

        Raises:
            ValueError: If it does not answer.
        """
        if self.storage is None:
            return None
        database = Database(self.storage)
        database.refuse_unreachable()
        return database

    @property
    def searches(self) -> bool:
        """Whether settings come from a search, new or earlier."""
        return self.tune is not None or self.tuned is not None

    def facts(self) -> dict[str, object]:
        """The options that a run depends on, as JSON values."""
        return {
            "tune": self.tune or 0,
            "tuned": None if self.tuned is None else str(self.tuned.resolve()),
            "storage": self.database.name if self.database else None,
        }

    def apply_to(self, recipe: Recipe, first: int | None) -> Recipe:
        """The recipe with the seeds and the tuning of the plan, starting at seed `first`."""
        seeds = recipe.seeds if first is None else tuple(range(first, first + len(recipe.seeds)))
        tuning = replace(recipe.tuning, against=self.against or recipe.tuning.against)
        if self.budgets is not None:
            tuning = replace(tuning, budget=None, budgets=self.budgets)
        return limit_seeds(replace(recipe, seeds=seeds, tuning=tuning), self.seeds)

    def refuse_other_families(self, recipes: Sequence[Recipe]) -> None:
        """Raises if the protocol does not support the family of a recipe."""
        for recipe in recipes:
            if self.protocol is not None and self.protocol not in recipe.family.protocols:
                actual = f"{recipe.name!r}, of family {recipe.family.name!r}"
                nouns = " or ".join(
                    f"{each.noun}s" for each in FAMILIES.values() if self.protocol in each.protocols
                )
                raise ValueError(f"--protocol {self.protocol} is for recipes of {nouns}, found {actual}")


def refuse_no_searches(folder: Path) -> None:
    """Raises if there is no folder of searches; names its sub-folder `tuning` if that is meant."""
    actual = f"none at {folder}"
    if (folder / out.CLAIM).is_file():
        actual = f"a run itself: name {folder / 'tuning'}"
    elif folder.is_dir():
        return
    raise ValueError(f"--tuned must be the folder 'tuning' of an earlier run, found {actual}")


def refuse_unreadable(recipes: Sequence[Recipe], device: str) -> None:
    """Raises if a recipe is repeated, or its data can't be read, split as specified, or fed to its model."""
    stages = [each for recipe in recipes for each in Stage(recipe, Path(), device).split_by_budget()]
    refuse_repeated_stages(stages)
    for recipe in recipes:
        stage = Stage(recipe, Path(), device)
        if (
            stage.has_trained_choice
        ):  # models that choose the forget set are not trained yet; any other split checks the data as well
            stage = replace(stage, recipe=replace(recipe, data=replace(recipe.data, forget="random")))
        split = stage.split()
        model = recipe.build(split.n_classes).to(device)
        recipe.family.refuse_unfit(model, split.train, recipe.data.name, split.n_classes)


def extends(facts: out.Facts, earlier_facts: out.Facts) -> bool:
    """Whether a new request extends an old one: the same recipes, and everything of the old request."""
    if any(facts[key] != earlier_facts.get(key) for key in facts if key not in GROWING):
        return False
    seed_pairs = zip(facts["seeds"], earlier_facts["seeds"], strict=True)
    is_extension = all(new[: len(old)] == old for new, old in seed_pairs)
    budget_pairs = zip(facts["budgets"], earlier_facts.get("budgets", facts["budgets"]), strict=True)
    is_extension = is_extension and all(
        set(old) <= set(new) and bool(old) == bool(new) for new, old in budget_pairs
    )
    concepts = facts.get("concepts", [])
    is_extension = is_extension and all(each in concepts for each in earlier_facts.get("concepts", []))
    return is_extension and set(earlier_facts["methods"]) <= set(facts["methods"])

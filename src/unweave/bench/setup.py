"""What a recipe trains and forgets: the fields of its file, and their ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unweave.descent.descend import Descent
from unweave.families.classifier import Classification
from unweave.families.diffusion import Generation
from unweave.families.family import Family
from unweave.methods import DEFAULT, method_named

Against = Literal["proxy", "retrain"]


@dataclass(frozen=True)
class Data:
    """What is learned, and which part of it is to be forgotten.

    Args:
        name: The data set.
        folder: Where its files are; None for its own place. "images" are a user's own, from there.
        limit: How many training examples to keep, the classes in proportion; all if None.
        seed: Chooses the forget set, the wrong labels, what `limit` keeps, and which held-out half is for
            calibration.
        noise: The fraction of training labels moved to a uniform other class.
        forget: A random fraction, all examples of one label, or given positions; or a fraction of one kind:
            "mislabelled" by `noise`, at random among those; "memorized" and "generalized", with the highest
            and the lowest loss by a model that was trained without them; "entangled", with features nearest
            to those of other classes; "worst-case", which a model trained without all of them knows best
            (see `strata.py`).
        fraction: The fraction of the training examples that all but "class" and "ids" forget.
        label: The label that "class" forgets.
        ids: The positions that "ids" forgets.
        augment: Whether training images are cropped and mirrored at random, where the data set does that.
        folds: How many models, each trained without one fold, say what is memorised.
    """

    name: Literal["digits", "digit-images", "fashion-mnist", "cifar10", "images"]
    folder: str | None = None
    limit: int | None = None
    seed: int = 0
    noise: float = 0.0
    forget: Literal[
        "random", "class", "ids", "mislabelled", "memorized", "generalized", "entangled", "worst-case"
    ] = "random"
    fraction: float = 0.1
    label: int = 0
    ids: tuple[int, ...] = ()
    augment: bool = True
    folds: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), found {self.fraction}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must be a fraction in [0, 1), found {self.noise}")
        if self.limit is not None and self.limit < 2:
            raise ValueError(f"limit must be at least 2 training examples, found {self.limit}")
        if (self.forget == "ids") != bool(self.ids):
            found = f"forget = {self.forget!r} with {len(self.ids)} ids"
            raise ValueError(f"ids are what forget = 'ids' forgets, found {found}")
        if self.forget == "mislabelled" and self.fraction > self.noise:
            raise ValueError(
                f"forget = 'mislabelled' forgets examples whose label noise has moved, {self.noise} of all, "
                f"found fraction = {self.fraction}: set more noise, or a smaller fraction"
            )
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, found {self.folds}")


@dataclass(frozen=True)
class Architecture:
    """A model by name.

    Args:
        name: A key of `unweave.tasks.models.MODELS`, or of `DENOISERS` where there is a table "generation".
        settings: What to change of its defaults.
    """

    name: str
    settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuning:
    """How settings are searched: on other seeds than the reported ones, and never on the test part.

    Args:
        trials: How many settings are tried per method.
        against: What trials forget and which model they are to reach: "proxy", other examples that the recipe
            retains and a model retrained without those, or "retrain", what the recipe forgets and a model
            retrained without that (see `practice`).
        seeds: Seeds of training, and of the proxies.
        begin: The settings that are tried first: the "defaults" of a method, so that none has the benefit of
            an earlier search, or those of its table in the "recipe".
        budget: The most that a method may spend, relative to the gradient evaluations of retraining; the
            largest of `budgets` if None, and 0.5 without any.
        budgets: Several, each of which `bench` makes a stage of its own for, with searches of its own; the
            smallest at which a method passes is what a PASS costs it. `budget` is one of them.
        limit: How many training examples trials see, the classes in proportion; all if None. Steps that are
            found on them are more on all the data (see `Study.settings`).
    """

    trials: int = 20
    against: Against = "proxy"
    begin: Literal["defaults", "recipe"] = "defaults"
    seeds: tuple[int, ...] = (1000, 1001)
    budget: float | None = None
    budgets: tuple[float, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.seeds:
            found = f"{self.trials} and {len(self.seeds)}"
            raise ValueError(f"tuning needs at least one trial and one seed, found {found}")
        for each in (*self.budgets, self.largest_budget):
            if not 0 < each <= 1:
                raise ValueError(f"a budget must be a fraction of retraining in (0, 1], found {each}")
        found = ", ".join(map(str, self.budgets))
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError(f"budgets must differ, found {found}")
        if self.budgets and self.largest_budget not in self.budgets:
            raise ValueError(
                f"budget must be one of budgets, {found}, found {self.budget}: leave one of the two out"
            )

    @property
    def largest_budget(self) -> float:
        """The most that a method may spend, relative to retraining."""
        return max(self.budgets, default=0.5) if self.budget is None else self.budget


@dataclass(frozen=True)
class Setup:
    """What is trained and forgotten. The forget set is the same for all seeds: a seed is a seed of training.

    Args:
        name: What the stage is called in records, and its folders.
        data: What is learned and forgotten.
        model: What learns it.
        train: How originals and retrained references are trained.
        seeds: The reported seeds.
        calibration_seeds: Seeds of the retrained models that fix the margins of verdicts.
        tuning: How settings are searched.
        headline: The method whose verdict a report opens with.
        probe: The number of steps between two measurements of the conflict of the headline's two gradients;
            none are made if 0.
        partial: Whether training is cut short on purpose, so that there can be no verdict.
        generation: What is drawn from denoisers; None for classifiers.
        save_every: How many steps a training that is interrupted may lose; all if None.
    """

    name: str
    data: Data
    model: Architecture
    train: Descent
    seeds: tuple[int, ...] = tuple(range(10))
    calibration_seeds: tuple[int, ...] = tuple(range(100, 112))
    tuning: Tuning = Tuning()
    headline: str = DEFAULT
    probe: int = 0
    partial: bool = False
    generation: Generation | None = None
    save_every: int | None = None

    @property
    def family(self) -> Family:
        """What kind of models it trains."""
        return self.generation or Classification()

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or set(self.name) & set("/\\\0"):
            raise ValueError(f"name must do as that of a file, without / and \\, found {self.name!r}")
        if self.generation is not None and self.data.forget != "class":
            raise ValueError(f"a generator forgets a class, found forget = {self.data.forget!r}")
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"save_every must be at least 1 step, found {self.save_every}")
        if self.probe < 0:
            raise ValueError(f"probe must be a number of steps, or 0 for none, found {self.probe}")
        if not self.seeds:
            raise ValueError("a recipe needs at least one seed, found none")
        used = {"seeds": self.seeds, "calibration_seeds": self.calibration_seeds}
        owners: dict[int, str] = {}
        for name, seeds in (used | {"tuning.seeds": self.tuning.seeds}).items():
            for seed in seeds:
                if seed in owners:
                    raise ValueError(f"each seed has one use, found {seed} in {owners[seed]} and in {name}")
                owners[seed] = name
        method_named(self.headline, self.family.name)

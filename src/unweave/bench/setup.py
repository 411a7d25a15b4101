"""The setup of a recipe: training, data and forget set, with the ranges of all fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unweave.descent.descend import Descent
from unweave.families import DEFAULT_FAMILY
from unweave.families.family import Family
from unweave.methods import DEFAULT, method_named

Against = Literal["proxy", "retrain"]


@dataclass(frozen=True)
class Plant:
    """Examples planted into the training data, of which the known part is the forget set.

    Args:
        kind: "backdoor": a bright square in a corner, with the label `target`. "swap": `classes` exchange
            their labels, without a square. "canaries": Gaussian noise on inputs. "none".
        fraction: The planted fraction of the training examples; of a swap, of those of the two classes.
        known: The fraction of the planted examples that is known.
        target: The label that a backdoor teaches.
        size: The side of the square in pixels.
        classes: The two labels of a swap.
        sigma: The standard deviation of the noise, in units of the inputs.
    """

    kind: Literal["none", "backdoor", "swap", "canaries"] = "none"
    fraction: float = 0.1
    known: float = 1.0
    target: int = 0
    size: int = 3
    classes: tuple[int, ...] = (0, 1)
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), found {self.fraction}")
        if not 0 < self.known <= 1:
            raise ValueError(f"known must be a fraction in (0, 1], found {self.known}")
        if len(set(self.classes)) != 2 or len(self.classes) != 2:
            raise ValueError(f"classes must be the two labels of a swap, found {list(self.classes)}")
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, found {self.sigma}")


@dataclass(frozen=True)
class Data:
    """The data and its forget set.

    Args:
        name: The data set.
        folder: The folder of its files; None for the default. "images" are your own, from this folder.
        limit: The number of training examples to keep, with the classes in proportion; all if None.
        seed: Chooses the forget set, the wrong labels, the examples of `limit`, and the held-out half for
            calibration.
        noise: The fraction of training labels replaced by a uniform other class.
        forget: "random": a random fraction. "class": all examples of one label. "ids": given positions. Or a
            fraction of one kind: "mislabelled" by `noise`, at random among those; "memorized" and
            "generalized", with the highest and the lowest loss by a model trained without them; "entangled",
            with features nearest to those of other classes; "worst-case", which a model trained without all
            of them knows best (see `strata.py`). "planted": the known part of what `plant` plants.
        fraction: The size of the forget set as a fraction of the training examples, except for "class",
            "ids" and "planted".
        label: The label for "class".
        ids: The positions for "ids".
        augment: Crop and mirror training images at random, if the data set is usually augmented.
        folds: The number of models, each trained without one fold, that measure memorisation.
        plant: Examples planted into the training data.
    """

    name: Literal["digits", "digit-images", "fashion-mnist", "cifar10", "images"]
    folder: str | None = None
    limit: int | None = None
    seed: int = 0
    noise: float = 0.0
    forget: Literal[
        "random",
        "class",
        "ids",
        "mislabelled",
        "memorized",
        "generalized",
        "entangled",
        "worst-case",
        "planted",
    ] = "random"
    fraction: float = 0.1
    label: int = 0
    ids: tuple[int, ...] = ()
    augment: bool = True
    folds: int = 5
    plant: Plant = Plant()

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), found {self.fraction}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must be a fraction in [0, 1), found {self.noise}")
        if self.limit is not None and self.limit < 2:
            raise ValueError(f"limit must be at least 2 training examples, found {self.limit}")
        if (self.forget == "ids") != bool(self.ids):
            actual = f"forget = {self.forget!r} with {len(self.ids)} ids"
            raise ValueError(f"ids go with forget = 'ids', found {actual}")
        if self.forget == "mislabelled" and self.fraction > self.noise:
            raise ValueError(
                f"forget = 'mislabelled' forgets examples whose label noise has moved, {self.noise} of all, "
                f"found fraction = {self.fraction}: set more noise, or a smaller fraction"
            )
        if (self.forget == "planted") != (self.plant.kind != "none"):
            actual = f"forget = {self.forget!r} with plant.kind = {self.plant.kind!r}"
            raise ValueError(f"planted examples go with forget = 'planted', found {actual}")
        if self.noise and self.plant.kind != "none":
            raise ValueError(
                f"planted examples go with noise = 0, found {self.noise}: leave one of the two out"
            )
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, found {self.folds}")


@dataclass(frozen=True)
class Architecture:
    """A model by name.

    Args:
        name: A key of `unweave.tasks.models.MODELS`, or of `DENOISERS` with a table "generation".
        settings: The settings to change.
    """

    name: str
    settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuning:
    """The search of settings: on other seeds than the reported ones, and never on the test set.

    Args:
        trials: The number of trials per method.
        against: The forget set of trials, which are compared with a model retrained without it: "proxy", a
            proxy request drawn from the retain set; or "retrain", the recipe's own forget set (see
            `proxy_requests`).
        seeds: The seeds of the trainings and of the proxy requests.
        begin: The settings of the first trial: the "defaults" of a method, so that no method benefits from an
            earlier search, or those of its table in the "recipe".
        budget: The largest number of gradient evaluations of a method, relative to those of retraining; the
            largest of `budgets` if None, or 0.5 without any.
        budgets: Several budgets; `bench` makes a stage with its own searches for each. The smallest at which
            a method passes is its cost of a PASS. `budget` is one of them.
        limit: The number of training examples in trials, with the classes in proportion; all if None. Steps
            found with them are scaled to all the data (see `Study.settings`).
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
            actual = f"{self.trials} and {len(self.seeds)}"
            raise ValueError(f"tuning needs at least one trial and one seed, found {actual}")
        for each in (*self.budgets, self.largest_budget):
            if not 0 < each <= 1:
                raise ValueError(f"a budget must be a fraction of retraining in (0, 1], found {each}")
        budgets = ", ".join(map(str, self.budgets))
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError(f"budgets must differ, found {budgets}")
        if self.budgets and self.largest_budget not in self.budgets:
            raise ValueError(
                f"budget must be one of budgets, {budgets}, found {self.budget}: leave one of the two out"
            )

    @property
    def largest_budget(self) -> float:
        """The largest budget of a method, relative to retraining."""
        return max(self.budgets, default=0.5) if self.budget is None else self.budget


@dataclass(frozen=True)
class Setup:
    """The setup of a stage. All seeds have the same forget set: a seed is a seed of training.

    Args:
        name: The name of the stage in records and folders.
        data: The data and its forget set.
        model: The model.
        train: The training of originals and retrained references.
        seeds: The reported seeds.
        calibration_seeds: The seeds of the retrained models that fix the margins of verdicts.
        tuning: The search of settings.
        headline: The method whose verdict a report opens with.
        probe: The number of steps between two measurements of the conflict of the headline's two gradients; 0
            measures none.
        partial: Whether training is shortened on purpose, which rules out a verdict.
        family: The family of its models, with its settings; read from a table of the family's own.
        save_every: The largest number of steps lost by an interrupted training; all if None.
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
    family: Family = DEFAULT_FAMILY
    save_every: int | None = None

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or set(self.name) & set("/\\\0"):
            raise ValueError(f"name must be a valid file name, without / and \\, found {self.name!r}")
        if self.family.whole_classes and self.data.forget != "class":
            raise ValueError(f"a {self.family.noun} forgets a class, found forget = {self.data.forget!r}")
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"save_every must be at least 1 step, found {self.save_every}")
        if self.save_every is not None and self.train.unsaved_state:
            raise ValueError(
                f"save_every saves no state of train.{self.train.unsaved_state}: leave one of them out"
            )
        if self.probe < 0:
            raise ValueError(f"probe must be a number of steps, or 0 for none, found {self.probe}")
        if not self.seeds:
            raise ValueError("a recipe needs at least one seed, found none")
        uses = {"seeds": self.seeds, "calibration_seeds": self.calibration_seeds}
        owners: dict[int, str] = {}
        for name, seeds in (uses | {"tuning.seeds": self.tuning.seeds}).items():
            for seed in seeds:
                if seed in owners:
                    raise ValueError(f"each seed has one use, found {seed} in {owners[seed]} and in {name}")
                owners[seed] = name
        method_named(self.headline, self.family.name)

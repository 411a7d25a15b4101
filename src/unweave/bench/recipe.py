"""Recipes: the training, the forget set and the methods. One TOML file, read into frozen dataclasses.

NAME@0.1.toml beside NAME.toml holds tables of methods with settings that a search within a budget of 0.1
found, as `bench --tune --budgets` writes them. It is recipe NAME at that budget.

Every key is a field of `setup.py`, of `Descent` (`[train]`), or of a method (`[methods.NAME]`). An unknown
key, choice or method raises an error that suggests the nearest known one.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from torch import nn

from unweave.bench.other_recipes import kind_of_content, kind_of_name, refuse_kind
from unweave.bench.setup import Setup
from unweave.choices import explain_unknown
from unweave.descent.descend import Descent
from unweave.families import DEFAULT_FAMILY, families_by_table, family_tables, read_family
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.methods.pipeline import Pipeline
from unweave.methods.simple import FromScratch
from unweave.methods.unfit_targets import refuse_unfit_targets
from unweave.tables import (
    Table,
    as_table,
    field_paths,
    merge_tables,
    read,
    read_toml,
    refuse_unknown,
    require_mapping,
)

T = TypeVar("T")

FAMILY, METHODS = "family", "methods"
"""The fields that are not read like the others: a family has a table of its own name."""

AS_TRAINED, TRAINING = ("how", "impair"), ("forget", "proxy")
"""The fields that hold a descent like the training, and those that hold dataclasses with such a field."""


@dataclass(frozen=True)
class Recipe(Setup):
    """One stage of a benchmark: a setup, and the methods to compare on it.

    Args:
        methods: Every method by name, with its settings.
    """

    methods: Mapping[str, Method] = field(default_factory=lambda: DEFAULT_FAMILY.methods)

    def build(self, n_classes: int) -> nn.Module:
        """Builds a fresh model."""
        return self.family.build(self.model.name, n_classes, self.model.settings)

    def method(self, name: str) -> Method:
        """A method or pipeline; without a table it has its defaults, in the precision of the training."""
        return (
            self.methods[name]
            if name in self.methods
            else _match_training(self.family.method_named(name), self.train)
        )

    def default_method(self, name: str) -> Method:
        """The default of a method without a table in the recipe."""
        method = self.method(name)
        default = _methods(self, {}).get(name) or _match_training(self.family.method_named(name), self.train)
        return default if type(default) is type(method) else method

    def configured_methods(self) -> set[str]:
        """The names of the methods that have a table here, or settings of a caller's own."""
        defaults, train = _methods(self, {}), self.train
        methods = self.methods.keys() - defaults
        defaults |= {name: _match_training(self.family.method_named(name), train) for name in methods}
        return {name for name, method in self.methods.items() if method != defaults[name]}

    def table(self) -> dict[str, Any]:
        """The complete recipe as plain values, for `parse`."""
        table: dict[str, Any] = {}
        for key, value in as_table(self).items():
            table |= family_tables(self.family) if key == FAMILY else {key: value}
        return table

    def with_budget(self, budget: float) -> "Recipe":
        """The recipe with another budget, all of which short-retrain spends."""
        methods, short_retrain = dict(self.methods), self.methods.get("short-retrain")
        if isinstance(short_retrain, FromScratch):
            part = shorten_training(self.train, budget)
            how = replace(short_retrain.how, steps=part.steps, epochs=part.epochs)
            methods["short-retrain"] = replace(short_retrain, how=how)
        return replace(self, tuning=replace(self.tuning, budget=budget), methods=methods)

    def with_short_training(self, steps: int, limit: int | None = None) -> "Recipe":
        """A recipe with a short training on few examples, to check that it runs."""
        train = replace(self.train, steps=steps, epochs=None)
        return replace(self, train=train, data=replace(self.data, limit=limit), partial=True)


def load(place: str | Path, changes: Table = MappingProxyType({})) -> Recipe:
    """Loads a recipe by the path of its TOML file, or by the name of one of the package's recipes.

    `NAME@0.1` is the recipe `NAME` at a budget of 0.1, with the settings that were searched within it.

    Args:
        place: The path or the name.
        changes: Keys to change, as in TOML.

    Raises:
        ValueError: If there is no such recipe, or it is invalid.
    """
    return parse(merge_tables(_table(place), changes))


def recipe_names() -> tuple[str, ...]:
    """The names of the recipes that come with the package."""
    names = [entry.name for entry in files("unweave").joinpath("recipes").iterdir()]
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def parse(table: Table) -> Recipe:
    """Makes a recipe from plain values, as in TOML or a record.

    Raises:
        ValueError: If a key, choice or method is unknown, or a value has the wrong type or range.
    """
    refuse_unknown_keys([key for key in table if key != METHODS])
    family, other_keys = read_family(table), {METHODS, *families_by_table()}
    plain = {key: value for key, value in table.items() if key not in other_keys}
    setup = read(Setup, {"headline": family.usual_methods[0], **plain}, "", given={FAMILY: family})
    return Recipe(**vars(setup), methods=_methods(setup, require_mapping(table.get(METHODS, {}), METHODS)))


def refuse_unknown_keys(keys: Iterable[str]) -> None:
    """Raises at a key that is no field of a setup and no table of a family."""
    families, fields = families_by_table(), [path for path in field_paths(Setup) if path != FAMILY]
    inner = [f"{key}.{path}" for key, each in families.items() for path in field_paths(type(each))]
    known_keys = [*(path for path in fields if "." not in path), *families]
    refuse_unknown(dict.fromkeys(keys), known_keys, "", [*fields, *families, *inner])


def training_length(method: Method) -> tuple[int | None, float | None]:
    """The steps or epochs of a training from scratch."""
    assert isinstance(method, FromScratch)
    return method.how.steps, method.how.epochs


def shorten_training(train: Descent, share: float) -> Descent:
    """The training with a share of its steps."""
    steps = None if train.steps is None else max(1, round(share * train.steps))
    return replace(train, steps=steps, epochs=None if train.epochs is None else share * train.epochs)


def _table(place: str | Path) -> dict[str, Any]:
    """A recipe as plain values, complete: settings of a budget go into the recipe beside them."""
    ending = ".toml" if Path(place).suffix == ".toml" else ""
    name = Path(place).stem if ending else str(place)
    table = read_toml(_file(place))
    refuse_kind(place, kind_of_content(table))
    of, _, budget = name.rpartition("@")
    if not of or not _is_number(budget):
        return {"name": name, **table}
    refuse_unknown(table, ["methods"], f"{place}, settings of {of!r} at a budget")
    return _at_budget(_table(Path(place).with_name(f"{of}{ending}")), float(budget), table)


def _at_budget(table: Table, budget: float, settings: Table) -> dict[str, Any]:
    """A recipe at a budget, as plain values, with tables of those methods alone that have settings there."""
    tuning = {**require_mapping(table.get("tuning", {}), "tuning"), "budget": budget, "budgets": [budget]}
    recipe_tables, budget_tables = (
        require_mapping(each.get("methods", {}), "methods") for each in (table, settings)
    )
    methods = {
        name: merge_tables(
            *(
                require_mapping(each.get(name, {}), f"methods.{name}")
                for each in (recipe_tables, budget_tables)
            )
        )
        for name in budget_tables
    }
    return {**table, "tuning": tuning, "methods": methods}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _file(place: str | Path) -> Path | Traversable:
    if Path(place).suffix == ".toml":
        if not Path(place).is_file():
            raise ValueError(f"expected a recipe at {place}, found no such file")
        return Path(place)
    if str(place) not in recipe_names():
        refuse_kind(place, kind_of_name(place))
        raise ValueError(explain_unknown("recipe", str(place), recipe_names()))
    return files("unweave").joinpath("recipes", f"{place}.toml")


def _methods(setup: Setup, tables: Table) -> dict[str, Method]:
    """All methods: defaults, the recipe's training for those from scratch, and the settings of tables."""
    train = setup.train
    all_methods = dict(setup.family.methods) | {name: setup.family.method_named(name) for name in tables}
    short_training = shorten_training(train, setup.tuning.largest_budget)
    defaults = {name: _match_training(method, train) for name, method in all_methods.items()}
    defaults |= {"retrain": FromScratch(train), "short-retrain": FromScratch(short_training)}
    methods: dict[str, Method] = {
        name: _apply_table(method, tables.get(name, {}), train, f"methods.{name}")
        for name, method in defaults.items()
    }
    for name, method in methods.items():
        refuse_unfit_targets(method, setup.family.name, f"methods.{name}")
    if methods["retrain"] != defaults["retrain"]:
        raise ValueError("methods.retrain is the recipe's own training: change [train] instead")
    lengths = [training_length(each["short-retrain"]) for each in (defaults, methods)]
    if lengths[0] != lengths[1]:
        expected, found = (f"{steps} steps" if steps else f"{epochs} epochs" for steps, epochs in lengths)
        raise ValueError(
            f"methods.short-retrain must be as long as tuning.budget of [train], {expected}, found {found}: "
            "leave its length out, or search it again if [train] or the budget has changed"
        )
    return methods


def _apply_table(method: T, table: object, train: Descent, path: str) -> T:
    """Applies a table to a method; a target named in the table also trains like the recipe."""
    return configure(_match_training(configure(method, table, path), train), table, path)


def _match_training(method: T, train: Descent) -> T:
    """The method with the precision and weight decay of the recipe's training in its descents."""
    if isinstance(method, Pipeline):
        return cast(
            T, Pipeline(*(_match_training(each, train) for each in method.stages), names=method.names)
        )
    if not dataclasses.is_dataclass(method):
        return method
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    how = {"precision": train.precision, "weight_decay": train.weight_decay}
    descents = {name: replace(fields[name], **how) for name in AS_TRAINED if name in fields}
    inner = {name: _match_training(each, train) for name, each in fields.items() if name in TRAINING}
    return replace(cast(Any, method), **descents, **inner)

"""The method of a request: one of the registry with its settings, or a user's own retraining."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from unweave.bench.ranges import flatten_tables
from unweave.bench.recipe import recipe_names
from unweave.cli.inputs.scope import ALL, TrainedWeights
from unweave.cli.project import Project
from unweave.methods import Method
from unweave.methods.configure import configure, settings_of
from unweave.methods.unfit_targets import refuse_unfit_targets
from unweave.problem import Problem
from unweave.tables import require_mapping
from unweave.weights.sharded_model import load_whole


@dataclass(frozen=True)
class Retraining:
    """Retraining by a user's own `train(dataset, seed)`.

    Args:
        project: The project that defines `train`.
        seed: The seed of the training.
    """

    project: Project
    seed: int

    def __call__(self, problem: Problem) -> None:
        """Copies the weights of a retrained model into the problem's model."""
        retrain = self.project.retrain
        assert retrain is not None
        state = problem.processes.from_first(lambda: dict(retrain(problem.split, self.seed).state_dict()))
        load_whole(problem.model, state)

    def __repr__(self) -> str:
        return f"train(dataset, {self.seed})"


def configure_method(
    project: Project, name: str, *, tables: Mapping[str, Any], seed: int, trained: TrainedWeights = ALL
) -> Method | Retraining:
    """The method with its settings.

    Raises:
        ValueError: If a setting is unknown or wrong, or the method is retrain and there is no train(), or the
            weights to train don't suit the method or the model.
    """
    if name != "retrain" or project.scratch is not None:
        method = configure(project.method(name), tables, f"method {name}")
        refuse_unfit_targets(method, project.family.name, name)
        method = trained.wrap(method)
        trained.find_layers(project.fresh_model())
        return method
    if trained != ALL:
        raise ValueError(f"method retrain trains all weights, found --scope {trained.scope}: leave it out")
    if project.retrain is None:
        raise ValueError("method retrain needs train(dataset, seed) in the project, or --recipe, found none")
    if tables:
        raise ValueError(
            f"method retrain is the project's own train() and has no settings, found {', '.join(tables)}"
        )
    return Retraining(project, seed)


def tuned_method(
    project: Project,
    name: str,
    *,
    tables: Mapping[str, Any],
    seed: int,
    place: Path,
    advice: str,
    trained: TrainedWeights = ALL,
) -> Method | Retraining:
    """The method with the settings of an earlier run.

    Args:
        project: The project.
        name: The name of the method.
        tables: The settings.
        seed: The seed of a retraining.
        place: The file of the settings.
        advice: How to make them again.
        trained: The weights that it trains.

    Raises:
        ValueError: If they do not fit the method, as those of earlier versions may not.
    """
    try:
        return configure_method(project, name, tables=tables, seed=seed, trained=trained)
    except ValueError as error:
        raise ValueError(f"{place} has settings of another version of {name}: {error}: {advice}") from error


def tuned_settings(
    project: Project, method: str, *, model: str, tuning: Path, seed: int
) -> Mapping[str, Any]:
    """The settings of a search of `bench --tune`: all of the method's, so that no default of today enters.

    Raises:
        ValueError: If there are none, or they do not fit the method, or leave some of its settings open.
    """
    place = search_file(tuning, model)
    tables = read_search(tuning, model, method)
    advice = "run the bench that made it again, with --tune and another --out"
    result = tuned_method(project, method, tables=tables, seed=seed, place=place, advice=advice)
    if isinstance(result, Retraining):
        return tables
    missing = [path for path in flatten_tables(settings_of(result)) if path not in flatten_tables(tables)]
    if missing:
        raise ValueError(
            f"{place} must name all settings of {method}, as searches of this version do, found no "
            f"{missing[0]}: {advice}"
        )
    return tables


def read_methods(place: Path) -> Mapping[str, Any]:
    """The tables of methods in a file of settings.

    Raises:
        ValueError: If it is not TOML with tables of methods.
    """
    try:
        table = tomllib.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--tuned must be TOML, found {place}: {error}") from error
    return require_mapping(table.get("methods", {}), f"{place}: methods")


def read_search(tuning: Path, model: str, method: str) -> Mapping[str, Any]:
    """Reads the settings that `bench --tune` found for a method on a model.

    Args:
        tuning: The folder `tuning` of that run; or a file there, as each of several budgets has one.
        model: project.py, a recipe, or a model's folder.
        method: The name of the method.

    Raises:
        ValueError: If there are none.
    """
    place = search_file(tuning, model)
    tables = read_methods(place)
    if method not in tables:
        raise ValueError(
            f"{place} must have settings of {method}, found {', '.join(tables) or 'none'}: tune it first"
        )
    return tables[method]


def search_file(tuning: Path, model: str) -> Path:
    """The file of a search of a model; see `read_search`.

    Raises:
        ValueError: If there is none.
    """
    name = model if model in recipe_names() else Path(model).resolve().stem
    place = tuning if tuning.suffix == ".toml" else tuning / f"{name}.toml"
    if not place.is_file():
        folder = place.parent
        budgets = ", ".join(sorted(str(each) for each in folder.glob(f"{escape(name)}@*.toml")))
        advice = f": name the file of one budget, {budgets}" if budgets else ""
        raise ValueError(
            f"--tuned must be the folder 'tuning' of a bench of {model}, found no {place.name} in "
            f"{folder}{advice}"
        )
    return place

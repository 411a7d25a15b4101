"""A stage of a benchmark with a given original: a user's own model, instead of one per seed from a recipe.

A seed is then a seed of the methods and of the retrained models.
"""

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from unweave.bench.proxy_requests import whole_classes
from unweave.bench.recipe import Recipe
from unweave.bench.recipe import load as load_recipe
from unweave.bench.setup import Architecture, Data, Tuning
from unweave.bench.stage import MODELS, Stage
from unweave.cli.project import Project
from unweave.cli.project.place import Place, load_project, load_proxy_split, load_split, weights_digest
from unweave.cli.project.recipe import RECIPE
from unweave.descent.descend import Descent
from unweave.descent.timing import count_training
from unweave.descent.train import TRAINING_FORMAT, TrainedModel, digest
from unweave.families import family_tables
from unweave.record import checkpoint
from unweave.record.files import read_object, write_atomically
from unweave.split import Split
from unweave.weights.cost import Cost

COUNT = "retraining.json"
"""The file, among the searches, with the counted cost of a retraining by a user's own code."""


@dataclass(frozen=True, kw_only=True)
class UserModelStage(Stage):
    """A stage with a given original.

    Args:
        place: The place of the original.
        forget: The positions of the forget set.
        keeps_models: Whether retrained models are stored; their answers are in any case.
    """

    place: Place
    forget: tuple[int, ...]
    keeps_models: bool = True

    def split(self, tuning_seed: int | None = None) -> Split:
        """The split of the request, or of the proxy request of a tuning seed."""
        if tuning_seed is None:
            return load_split(self.place, self.forget, self.device)
        data_and_tuning = self.recipe.data, self.recipe.tuning
        return load_proxy_split(self.place, self.forget, self.device, *data_and_tuning, tuning_seed)

    def load_or_train(
        self, part: Literal["mixed", "retain"], seed: int, tuning_seed: int | None = None
    ) -> TrainedModel:
        """The given original, whatever the seed; or a model that the project retrains, which is stored."""
        project, split = load_project(self.place, self.device), self.split(tuning_seed)
        assert project.model is not None and project.retrain is not None
        if part == "mixed":
            return TrainedModel(project.model, Cost())
        facts = {**project.facts, "split": split.digest("retain"), "seed": seed, "device": self.device}
        folder = self.folder / MODELS / digest({**facts, "format": TRAINING_FORMAT})[:20]
        model = copy.deepcopy(project.model)
        if (folder / checkpoint.SIDECAR).exists():
            sidecar = checkpoint.load(folder, model, split_digest=split.digest("retain"))
            return TrainedModel(model.eval(), Cost(**cast(Mapping[str, Any], sidecar["cost"])))
        cost = Cost()
        with count_training(cost):
            retrained_model = project.retrain(split, seed)
        if self.keeps_models:
            checkpoint.save(folder, retrained_model.state_dict(), {**facts, "cost": dataclasses.asdict(cost)})
        model.load_state_dict(retrained_model.state_dict())
        return TrainedModel(model.eval(), cost)

    def refuse_unsearchable(self) -> None:
        """Raises, before any computation, if settings can't be searched for this original."""
        tuning, project = self.recipe.tuning, load_project(self.place, self.device)
        if tuning.limit is not None:
            raise ValueError(
                "the original has seen all of the data, so trials must use all of it, found [tuning] limit = "
                f"{tuning.limit}: remove it from the recipe"
            )
        if project.forgotten_classes and tuning.against == "proxy":
            raise ValueError(
                f"models retrained without a proxy would learn class {project.forgotten_classes[0]}, which "
                "the original forgot before: tune --against retrain"
            )
        for seed in tuning.seeds:
            self.split(seed)

    def with_retraining_cost(self, searches: Path | None = None) -> "UserModelStage":
        """The stage with the cost of a retraining, which sets the budget of a search.

        If only a user's own code knows it, the steps of the first retraining, which a search needs anyway,
        are counted and stored with the searches.

        Args:
            searches: The folder of an earlier run's searches, with the count.

        Raises:
            ValueError: If there is no count, or retraining takes no steps that can be counted.
        """
        if load_project(self.place, self.device).scratch is not None:
            return self
        count = (searches or self.folder / "tuning") / self.recipe.name / COUNT
        if searches is None:
            seed = self.recipe.tuning.seeds[0]
            steps = self.load_or_train("retain", seed, seed).cost.gradients
            refuse_uncounted_steps(steps)
            count.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(count, json.dumps({"gradient_evaluations": steps}))
        elif not count.exists():
            raise ValueError(f"{searches} has no searches for the stage {self.recipe.name!r}: tune it first")
        steps = read_object(count, ": tune it again").get("gradient_evaluations")
        if not isinstance(steps, int):
            raise ValueError(f"{count} does not hold the cost of a retraining: tune it again")
        recipe = dataclasses.replace(self.recipe, train=Descent(steps=steps))
        return dataclasses.replace(self, recipe=recipe.with_budget(recipe.tuning.largest_budget))

    def build(self, split: Split) -> Callable[[], nn.Module] | None:
        """A function that makes a fresh model, if the project has one."""
        return load_project(self.place, self.device).build

    def facts(self) -> dict[str, object]:
        """The facts of the project and of the original's weights, which its code may read from anywhere."""
        return {
            **load_project(self.place, self.device).facts,
            "original": weights_digest(self.place, self.device),
        }

    def describe_retraining(self) -> str:
        """The project's description of its retraining."""
        method = load_project(self.place, self.device).scratch
        return "train(dataset, seed)" if method is None else repr(method)

    def table(self) -> dict[str, Any]:
        """The stage as a record describes it: the project and the settings."""
        recipe_table = self.recipe.table()
        names = ("name", "seeds", "calibration_seeds", *family_tables(self.recipe.family), "methods")
        parts = {key: recipe_table[key] for key in names}
        # a record contains no path of a machine
        facts = {key: fact for key, fact in self.facts().items() if key != "project"}
        return {**parts, "given": facts, "data": {"name": "given"}}


def refuse_uncounted_steps(steps: int) -> None:
    """Raises if the steps of a retraining could not be counted."""
    if not steps:
        raise ValueError(
            "a trial may spend a part of the steps of a retraining, and train() took no step with an "
            "optimizer of torch in this process: train the model in this process"
        )


def stage_of(place: Place, forget: tuple[int, ...], folder: Path, device: str) -> UserModelStage:
    """Makes the stage of a given original.

    Raises:
        ValueError: If there is no original there, or no way to retrain.
    """
    project, split = load_project(place, device), load_split(place, forget, device)
    if project.model is None or project.retrain is None:
        ways = "train(dataset, seed) in project.py, or --recipe for a folder"
        raise ValueError(f"bench compares methods with retrained models, found no way to retrain: {ways}")
    return UserModelStage(recipe_of(place, project, split), folder, device, place=place, forget=forget)


def recipe_of(place: Place, project: Project, split: Split) -> Recipe:
    """A recipe for the project: its seeds, methods and exam."""
    chosen_recipe = find_recipe(place, project)
    recipe = Recipe(
        name=Path(os.path.abspath(place.model)).stem,  # of `.` as well
        data=data_of(project, split),
        model=Architecture("given"),
        train=Descent(epochs=1.0) if chosen_recipe is None else chosen_recipe.train,  # or as long as measured
        tuning=Tuning(begin="recipe"),  # without a recipe methods have their defaults
        headline=project.default_method,
        family=project.family,
        methods=project.methods,
    )
    if chosen_recipe is None:
        return recipe
    seeds_and_tuning = {
        "seeds": chosen_recipe.seeds,
        "calibration_seeds": chosen_recipe.calibration_seeds,
        "tuning": chosen_recipe.tuning,
    }
    return dataclasses.replace(recipe, probe=chosen_recipe.probe, **seeds_and_tuning)


def find_recipe(place: Place, project: Project) -> Recipe | None:
    """The recipe next to a model, or in its folder, if there is one."""
    if place.recipe is not None:
        return load_recipe(place.recipe)
    return None if project.scratch is None else load_recipe(Path(place.model) / RECIPE)


def data_of(project: Project, split: Split) -> Data:
    """The forget set as in a recipe: a class, or positions."""
    if project.family.whole_classes or len(whole_classes(split)) == 1:
        return Data("images", forget="class", label=int(split.train.labels[split.forget][0]))
    return Data("images", forget="ids", ids=tuple(split.forget.tolist()))

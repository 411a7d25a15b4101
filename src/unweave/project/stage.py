"""A stage of a benchmark whose original is given: a user's own model, and not one per seed from a recipe.

A seed is then one of the methods' randomness and of the retrained models.
"""

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from unweave import checkpoint
from unweave.descend import Descent
from unweave.problem import Cost, Split
from unweave.project import Project, load
from unweave.run.generation import Generation
from unweave.run.recipe import Recipe
from unweave.run.recipe import load as load_recipe
from unweave.run.setup import Architecture, Data
from unweave.run.stage import MODELS, Stage
from unweave.train import TRAINING, Trained, code, counted, digest


@dataclass(frozen=True)
class Place:
    """Where the original and its data are.

    Args:
        model: project.py, or the folder of a model.
        recipe: How a folder's model was trained.
        data: The images of a folder of diffusers.
    """

    model: str
    recipe: str | None
    data: str | None


@dataclass(frozen=True, kw_only=True)
class Given(Stage):
    """A stage over a given original.

    Args:
        place: Where that is.
        forget: The positions of what is to be forgotten.
    """

    place: Place
    forget: tuple[int, ...]

    def split(self, tuning_seed: int | None = None) -> Split:
        """The project's own data; nothing is tuned on it."""
        return split_of(self.place, self.forget, self.device)

    def trained(self, part: Literal["mixed", "retain"], seed: int, tuning_seed: int | None = None) -> Trained:
        """The given original, whatever the seed; or a model that the project retrains, which is kept."""
        project, split = project_of(self.place, self.device), self.split()
        assert project.model is not None and project.retrain is not None
        if part == "mixed":
            return Trained(project.model, Cost())
        facts = {**project.facts, "split": split.digest("retain"), "seed": seed, "device": self.device}
        folder = self.folder / MODELS / digest({**facts, "code": code(*TRAINING)})[:20]
        model = copy.deepcopy(project.model)
        if (folder / checkpoint.SIDECAR).exists():
            sidecar = checkpoint.load(folder, model, split_digest=split.digest("retain"))
            return Trained(model.eval(), Cost(**cast(Mapping[str, Any], sidecar["cost"])))
        cost = Cost()
        with counted(cost):
            made = project.retrain(split, seed)
        checkpoint.save(folder, made.state_dict(), {**facts, "cost": dataclasses.asdict(cost)})
        model.load_state_dict(made.state_dict())
        return Trained(model.eval(), cost)

    def build(self, split: Split) -> Callable[[], nn.Module] | None:
        """Makes a fresh model, where the project says how."""
        return project_of(self.place, self.device).build

    def known(self) -> dict[str, object]:
        """The facts of the project, and the original's weights, which its code may read from anywhere."""
        return {**project_of(self.place, self.device).facts, "original": weights_of(self.place, self.device)}

    def retraining(self) -> str:
        """As the project has it."""
        method = project_of(self.place, self.device).scratch
        return "train(dataset, seed)" if method is None else repr(method)

    def table(self) -> dict[str, Any]:
        """The project, and what is drawn and compared."""
        told = self.recipe.table()
        kept = {key: told[key] for key in ("name", "seeds", "calibration_seeds", "generation", "methods")}
        # a record names no place on a machine
        given = {key: fact for key, fact in self.known().items() if key != "project"}
        return {**kept, "given": given, "data": {"name": "given"}}


@cache
def project_of(place: Place, device: str) -> Project:
    """The project; once per process."""
    return load(place.model, recipe=place.recipe, data=place.data, device=device)


@cache
def weights_of(place: Place, device: str) -> str:
    """A digest of the original's weights; once per process."""
    model = project_of(place, device).model
    assert model is not None
    return checkpoint.contents(model.state_dict())


@cache
def split_of(place: Place, forget: tuple[int, ...], device: str) -> Split:
    """Its data, cut by what is to be forgotten; once per process."""
    return project_of(place, device).split(torch.tensor(forget, dtype=torch.long))


def is_given(places: list[str]) -> bool:
    """Whether a model is named, and no recipes."""
    return any(Path(place).is_dir() or Path(place).suffix == ".py" for place in places)


def stage_of(place: Place, forget: tuple[int, ...], folder: Path, device: str) -> Given:
    """The stage over a given original.

    Raises:
        ValueError: If there is no original there, or nobody said how to retrain.
    """
    project, split = project_of(place, device), split_of(place, forget, device)
    if project.model is None or project.retrain is None:
        needed = "train(dataset, seed) in project.py, or --recipe for a folder"
        raise ValueError(
            f"bench compares methods with retrained models, and nobody said how to train: {needed}"
        )
    return Given(recipe_of(place, project, split), folder, device, place=place, forget=forget)


def recipe_of(place: Place, project: Project, split: Split) -> Recipe:
    """What a recipe would say of the project: how often, with which methods, and how models are examined."""
    told = None if place.recipe is None else load_recipe(place.recipe)
    recipe = Recipe(
        name=Path(os.path.abspath(place.model)).stem,  # of `.` as well
        data=Data("images", forget="class", label=int(split.train.labels[split.forget][0])),
        model=Architecture("given"),
        train=Descent(epochs=1.0) if told is None else told.train,
        generation=project.family if isinstance(project.family, Generation) else None,
        methods=project.methods,
    )
    if told is None:
        return recipe
    reported = {"seeds": told.seeds, "calibration_seeds": told.calibration_seeds, "tuning": told.tuning}
    return dataclasses.replace(recipe, headline=told.headline, **reported)

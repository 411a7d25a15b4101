"""MODEL: a user's `project.py`, a recipe, or a folder with a model: with its recipe, or one of diffusers.

`project.py` defines `load()`, which returns a dict: `model` (an `nn.Module`, trained), `train` and `test`
(map-style data sets), and if wanted `ids` (a string per training example) and `calibration` (a data set of
its own, positions in `test`, or the fraction of it). With `generation`, a table as in a recipe, it is about a
denoiser `f(x_t, t, condition)`, and the examples are images as bytes with their class. It may define
`train(dataset, seed) -> model`, which is how retrained references come to be.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unweave import checkpoint
from unweave.cli import local, own
from unweave.cli.imported import code_digest
from unweave.data import Source
from unweave.methods import Method
from unweave.problem import Split
from unweave.run.family import Family
from unweave.run.reading import nearest
from unweave.run.recipe import Recipe, shipped
from unweave.run.recipe import load as load_recipe
from unweave.run.stage import CLASSIFIERS, split_of
from unweave.tasks import Task
from unweave.train import train_model

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class Project:
    """A model with its data, wherever the two come from.

    Args:
        facts: What tells it from any other, as JSON knows it: part of what a run depends on.
        train: The data that the model was trained on.
        test: Data that it never saw.
        calibration: The part of that which is set aside: a fraction, or positions.
        family: What kind of model it is.
        model: The original; None where it comes from a recipe and is not trained yet.
        forget: What a recipe forgets; None where only the user can say.
        methods: The methods, as they are set for it.
        original: Trains the original of a seed, kept in a folder if one is given; None beside `model`.
        retrain: Trains a model of a seed on the retain part of a split; None where nobody said how.
        build: Makes a model with fresh weights; None where that is left to the model's own modules.
        source: The folder of a model that keeps its form, and is never written to.
        write: Writes another model as a folder of diffusers, and what is said of it: as a copy of the source
            with other weights where there is one. None for other models.
    """

    facts: Mapping[str, Any]
    train: Source
    test: Source
    calibration: float | Sequence[int]
    family: Family = CLASSIFIERS
    model: nn.Module | None = None
    forget: torch.Tensor | None = None
    methods: Mapping[str, Method] = dataclasses.field(default_factory=lambda: CLASSIFIERS.methods)
    original: Callable[[int, Path | None], nn.Module] | None = None
    retrain: own.Retraining | None = None
    build: Callable[[], nn.Module] | None = None
    source: Path | None = None
    write: local.Write | None = None

    @property
    def scratch(self) -> Method | None:
        """Retraining as a recipe describes it; None where that is a user's own code, or nobody said how."""
        return None if self.build is None or self.retrain is None else self.methods["retrain"]

    def task(self, split: Split) -> Task:
        """How the model is scored while it forgets."""
        return self.family.task(split.n_classes, split.forgotten_classes)

    def split(self, forget: torch.Tensor) -> Split:
        """The data, cut by what is to be forgotten."""
        return Split(self.train, forget, self.test, calibration=self.calibration)

    def placed(self, device: str | None) -> tuple[nn.Module, "Project"]:
        """A copy of the model, whatever its weights, and the project with its data, both on one device.

        Args:
            device: The device; that of the model if None.
        """
        model = copy.deepcopy(self.untrained())
        place = device or str(next(model.parameters()).device)
        moved = dataclasses.replace(self, train=self.train.to(place), test=self.test.to(place))
        return model.to(place), moved

    def untrained(self) -> nn.Module:
        """A model of this architecture, whatever its weights."""
        if self.model is not None:
            return self.model
        assert self.build is not None
        return self.build()


def load(
    place: str, *, recipe: str | None = None, data: str | None = None, device: str | None = None
) -> Project:
    """What MODEL names.

    Args:
        place: `project.py`, the name or file of a recipe, or the folder of a model.
        recipe: The recipe of a folder that has none of its own.
        data: The images of a folder of diffusers.
        device: Where a recipe's models are trained.

    Raises:
        ValueError: If there is no such thing, or something about it can't be right.
    """
    path = Path(place)
    if path.is_dir() and local.is_local(path):
        return from_local(path, recipe, data, device or "cpu")
    if data is not None:
        raise ValueError(f"--data names the images of a folder of diffusers, found no such folder at {place}")
    if path.is_dir():
        return from_folder(path, recipe, device or "cpu")
    if recipe is not None:
        raise ValueError(f"--recipe says what the model in a folder is, found no folder at {place}")
    if path.suffix == ".py":
        return from_file(path)
    if path.suffix == ".toml" or place in shipped():
        return from_recipe(load_recipe(place), device or "cpu")
    known = ", ".join(shipped())
    guess = nearest(place, shipped())
    raise ValueError(
        f"MODEL must be project.py, a recipe or a folder, found {place!r}{guess}; recipes: {known}"
    )


def from_file(path: Path) -> Project:
    """A user's own model and data."""
    said = own.read(path)
    facts = {"project": str(path.resolve()), "sha256": code_digest(path.resolve())}
    return Project(
        facts,
        said.train,
        said.test,
        said.calibration,
        said.family,
        said.model,
        methods=said.family.methods,
        retrain=said.retrain,
    )


def from_recipe(recipe: Recipe, device: str) -> Project:
    """The model and data of a recipe; the model is trained when it is needed."""
    family = recipe.family
    split = split_of(recipe.data, family=family, device=device)
    told = ("data", "model", "train", *(("generation",) if recipe.generation else ()))
    table = {key: value for key, value in recipe.table().items() if key in told}
    task = family.task(split.n_classes)

    def build() -> nn.Module:
        return recipe.build(split.n_classes)

    def original(seed: int, folder: Path | None) -> nn.Module:
        made = train_model(recipe.train, build, split, "mixed", seed, task=task, device=device, cache=folder)
        return made.model

    return Project(
        facts={"recipe": table, "device": device},
        family=family,
        train=split.train,
        test=split.held_out,
        calibration=split.calibration.tolist(),
        forget=split.forget,
        methods=recipe.methods,
        original=original,
        retrain=retraining(recipe, family, build, device),
        build=build,
        write=None if recipe.generation is None else local.writer(recipe.generation, split.n_classes),
    )


def retraining(recipe: Recipe, family: Family, build: Callable[[], nn.Module], device: str) -> own.Retraining:
    """Trains as a recipe says."""

    def retrain(cut: Split, seed: int) -> nn.Module:
        task = family.task(cut.n_classes)
        return train_model(recipe.train, build, cut, "retain", seed, task=task, device=device).model

    return retrain


def from_local(folder: Path, recipe: str | None, data: str | None, device: str) -> Project:
    """A denoiser in a folder of diffusers; a recipe says how to train it anew."""
    told = None if recipe is None else load_recipe(recipe)
    found = local.read(folder, data, told, device)
    facts = {"weights": found.weights, "data": found.split.digest("mixed"), "family": repr(found.family)}
    facts |= {"train": None if told is None else repr(told.train), "device": device}
    return Project(
        facts=facts,
        family=found.family,
        train=found.split.train,
        test=found.split.held_out,
        calibration=found.split.calibration.tolist(),
        model=found.model,
        forget=None if told is None else found.split.forget,
        methods=found.family.methods if told is None else told.methods,
        retrain=None if told is None else retraining(told, found.family, found.fresh, device),
        build=found.fresh,
        source=folder,
        write=found.write,
    )


def from_folder(folder: Path, recipe: str | None, device: str) -> Project:
    """A trained model in a folder; it must have been trained on the data of its recipe.

    Args:
        folder: Holds model.safetensors with model.json, and perhaps recipe.toml.
        recipe: The recipe, if it is not there.
        device: Where the model is put.
    """
    if recipe is None and not (folder / RECIPE).is_file():
        raise ValueError(f"{folder} has no {RECIPE} that says what its model is: name a recipe with --recipe")
    project = from_recipe(load_recipe(recipe or folder / RECIPE), device)
    model = project.untrained()
    assert project.forget is not None
    digest = project.split(project.forget).digest("mixed")
    sidecar = checkpoint.load(folder, model, split_digest=digest)
    facts = {**project.facts, "weights": sidecar["weights"]}
    return dataclasses.replace(project, facts=facts, model=model.to(device).eval(), original=None)

"""The model of a recipe: trained on demand, or read from a folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import nn

from unweave.bench.recipe import Recipe
from unweave.bench.recipe import load as load_recipe
from unweave.bench.split_data import make_split
from unweave.cli.project.project import Project, Retraining
from unweave.descent.train import train_model
from unweave.families.family import Family
from unweave.record import checkpoint
from unweave.split import Split

RECIPE = "recipe.toml"


def from_recipe(recipe: Recipe, device: str) -> Project:
    """The project of a recipe; its model is trained on demand."""
    family = recipe.family
    split = make_split(recipe.data, family=family, device=device)
    parts = ("data", "model", "train", family.table)
    table = {key: value for key, value in recipe.table().items() if key in parts}
    task = family.task(split.n_classes)

    def build() -> nn.Module:
        return recipe.build(split.n_classes)

    def original(seed: int, folder: Path | None) -> nn.Module:
        return train_model(
            recipe.train, build, split, "mixed", seed, task=task, device=device, cache=folder
        ).model

    return Project(
        facts={"recipe": table, "device": device},
        family=family,
        train=split.train,
        test=split.held_out,
        calibration=split.calibration.tolist(),
        forget=split.forget,
        methods=recipe.methods,
        find_method=recipe.method,
        headline=recipe.headline,
        original=original,
        retrain=make_retraining(recipe, family, build, device),
        build=build,
        write=family.writer(split.n_classes),
    )


def make_retraining(
    recipe: Recipe, family: Family, build: Callable[[], nn.Module], device: str
) -> Retraining:
    """The retraining of a recipe."""

    def retrain(request_split: Split, seed: int) -> nn.Module:
        task = family.task(request_split.n_classes)
        return train_model(recipe.train, build, request_split, "retain", seed, task=task, device=device).model

    return retrain


def from_folder(folder: Path, recipe: str | None, device: str) -> Project:
    """The project of a trained model in a folder, which must have been trained on the data of its recipe.

    Args:
        folder: A folder with model.safetensors and model.json, and optionally recipe.toml.
        recipe: The recipe, if the folder has none.
        device: The device of the model.
    """
    if recipe is None and not (folder / RECIPE).is_file():
        raise ValueError(f"{folder} has no {RECIPE} that says what its model is: name a recipe with --recipe")
    project = from_recipe(load_recipe(recipe or folder / RECIPE), device)
    model = project.fresh_model()
    assert project.forget is not None
    digest = project.split(project.forget).digest("mixed")
    sidecar = checkpoint.load(folder, model, split_digest=digest)
    facts = {**project.facts, "weights": sidecar["weights"]}
    return dataclasses.replace(project, facts=facts, model=model.to(device).eval(), original=None)

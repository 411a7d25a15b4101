"""MODEL: a user's `project.py`, a recipe, or a folder with a model: with its recipe, or one of diffusers."""

from pathlib import Path

from unweave.bench.recipe import load as load_recipe
from unweave.bench.recipe import recipe_names
from unweave.choices import suggest_word
from unweave.cli.project.diffusers_folder import CONFIGS, from_local, is_local
from unweave.cli.project.project import Project
from unweave.cli.project.recipe import from_folder, from_recipe
from unweave.cli.project.user_code import from_file

__all__ = ["Project", "load"]


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
    if path.is_dir() and is_local(path):
        return from_local(path, recipe, data, device or "cpu")
    if data is not None:
        found = f"no {' or '.join(CONFIGS)} in {place}" if path.is_dir() else f"no such folder at {place}"
        raise ValueError(f"--data names the images of a folder of diffusers, found {found}")
    if path.is_dir():
        return from_folder(path, recipe, device or "cpu")
    if recipe is not None:
        raise ValueError(f"--recipe says what the model in a folder is, found no folder at {place}")
    if path.suffix == ".py":
        return from_file(path)
    if path.suffix == ".toml" or place in recipe_names():
        return from_recipe(load_recipe(place), device or "cpu")
    known = ", ".join(recipe_names())
    guess = suggest_word(place, recipe_names())
    raise ValueError(
        f"MODEL must be project.py, a recipe or a folder, found {place!r}{guess}; recipes: {known}"
    )

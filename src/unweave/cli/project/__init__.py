"""MODEL: a user's `project.py`, a recipe, or the folder of a model, with its recipe or of diffusers."""

from pathlib import Path

from unweave.bench.recipe import load as load_recipe
from unweave.bench.recipe import recipe_names
from unweave.choices import suggest_word
from unweave.cli.project.diffusers_folder import CONFIGS, from_local, is_local
from unweave.cli.project.project import Project as Project
from unweave.cli.project.recipe import from_folder, from_recipe
from unweave.cli.project.user_code import from_file


def load(
    place: str, *, recipe: str | None = None, data: str | None = None, device: str | None = None
) -> Project:
    """Loads the project that MODEL names.

    Args:
        place: `project.py`, the name or file of a recipe, or the folder of a model.
        recipe: The recipe of a folder that has no recipe in it.
        data: The images for a diffusers folder.
        device: The device to train a recipe's models on.

    Raises:
        ValueError: If there is no such model, or something about it is invalid.
    """
    path = Path(place)
    if path.is_dir() and is_local(path):
        return from_local(path, recipe, data, device or "cpu")
    if data is not None:
        actual = f"no {' or '.join(CONFIGS)} in {place}" if path.is_dir() else f"no such folder at {place}"
        raise ValueError(f"--data goes with a diffusers folder, found {actual}")
    if path.is_dir():
        return from_folder(path, recipe, device or "cpu")
    if recipe is not None:
        raise ValueError(f"--recipe goes with the folder of a model, found no folder at {place}")
    if path.suffix == ".py":
        return from_file(path)
    if path.suffix == ".toml" or place in recipe_names():
        return from_recipe(load_recipe(place), device or "cpu")
    names = ", ".join(recipe_names())
    guess = suggest_word(place, recipe_names())
    raise ValueError(
        f"MODEL must be project.py, a recipe or a folder, found {place!r}{guess}; recipes: {names}"
    )

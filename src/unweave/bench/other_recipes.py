"""Recipes of other kinds, which are no stages of classifiers or generators of classes."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from unweave.tables import read_toml

TEXT_TO_IMAGE = "text-to-image"

KINDS: Mapping[str, tuple[str, str]] = {
    TEXT_TO_IMAGE: (
        "drawings",
        "trains a small text-to-image model: run unweave bench {place} --concept red",
    ),
    "concepts": (
        "concept",
        "erases a concept from your own pipeline: run unweave forget FOLDER --recipe {place}",
    ),
}
"""By the folder of the recipes: a key that others lack, and what a recipe is for."""


def is_text_to_image(place: str) -> bool:
    """Whether a name or a TOML file is a recipe of small text-to-image models; a folder is none."""
    if Path(place).suffix != ".toml":
        return kind_of_name(place) == TEXT_TO_IMAGE and not Path(place).is_dir()
    try:
        return kind_of_content(read_toml(Path(place))) == TEXT_TO_IMAGE
    except (OSError, ValueError):  # no such file, no TOML or no UTF-8: whoever reads the recipe says so
        return False


def kind_of_name(place: str | Path) -> str | None:
    """The kind of a recipe of the package; None if there is none of that name among the other kinds."""
    for kind in KINDS:
        if f"{place}.toml" in {each.name for each in files("unweave").joinpath("recipes", kind).iterdir()}:
            return kind
    return None


def kind_of_content(table: Mapping[str, Any]) -> str | None:
    """The kind of a recipe by its content; None for a stage of classifiers or generators of classes."""
    return next((kind for kind, (key, _) in KINDS.items() if key in table and "data" not in table), None)


def refuse_kind(place: str | Path, kind: str | None) -> None:
    """Raises for a recipe of another kind."""
    if kind is not None:
        raise ValueError(f"the recipe {str(place)!r} {KINDS[kind][1].format(place=place)}")

"""Recipes of other kinds, which a benchmark does not run: an error names what does."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

KINDS: Mapping[str, tuple[str, str]] = {
    "text-to-image": (
        "drawings",
        "trains a small text-to-image model: run unweave demo text-to-image, or in the clone "
        "python benchmarks/text_to_image_models.py --recipe {place}, and then text_to_image_study.py",
    ),
    "concepts": (
        "concept",
        "erases a concept from your own pipeline: run unweave forget FOLDER --recipe {place}",
    ),
}
"""By the folder of the recipes: a key that others lack, and what a recipe is for."""


def refuse_other_name(place: str | Path) -> None:
    """Raises if a name is that of a recipe of another kind in the package."""
    for kind, (_, advice) in KINDS.items():
        folder = files("unweave").joinpath("recipes", kind)
        if f"{place}.toml" in {each.name for each in folder.iterdir()}:
            raise ValueError(explain(place, advice))


def refuse_other_content(place: str | Path, table: Mapping[str, Any]) -> None:
    """Raises if the content of a file is a recipe of another kind."""
    for key, advice in KINDS.values():
        if key in table and "data" not in table:
            raise ValueError(explain(place, advice))


def explain(place: str | Path, advice: str) -> str:
    """The error about a recipe of another kind."""
    return f"bench does not run the recipe {str(place)!r}, which {advice.format(place=place)}"

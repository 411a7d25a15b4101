"""The place of a given original and its data, and what every process caches of them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from unweave.bench.proxy_requests import proxy_split
from unweave.bench.setup import Data, Tuning
from unweave.cli.project import Project, load
from unweave.record import checkpoint
from unweave.split import Split


@dataclass(frozen=True)
class Place:
    """The place of the original and its data.

    Args:
        model: project.py, or the folder of a model.
        recipe: The recipe of a folder's model.
        data: The images for a diffusers folder.
    """

    model: str
    recipe: str | None
    data: str | None


def is_given(places: list[str]) -> bool:
    """Whether the places name a model instead of recipes."""
    return any(Path(place).is_dir() or Path(place).suffix == ".py" for place in places)


@cache
def load_project(place: Place, device: str) -> Project:
    """Loads the project, once per process."""
    return load(place.model, recipe=place.recipe, data=place.data, device=device)


@cache
def weights_digest(place: Place, device: str) -> str:
    """The digest of the original's weights, computed once per process."""
    model = load_project(place, device).model
    assert model is not None
    return checkpoint.contents(model.state_dict())


@cache
def load_split(place: Place, forget: tuple[int, ...], device: str) -> Split:
    """Loads the split of the request, once per process."""
    return load_project(place, device).split(torch.tensor(forget, dtype=torch.long))


@cache
def load_proxy_split(
    place: Place, forget: tuple[int, ...], device: str, data: Data, tuning: Tuning, seed: int
) -> Split:
    """Loads the split of the proxy request of a tuning seed, once per process."""
    return proxy_split(load_split(place, forget, device), data, tuning, seed)

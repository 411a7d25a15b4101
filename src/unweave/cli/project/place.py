"""Where a given original and its data are, and what of them every process keeps at hand."""

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
    """Where the original and its data are.

    Args:
        model: project.py, or the folder of a model.
        recipe: How a folder's model was trained.
        data: The images of a folder of diffusers.
    """

    model: str
    recipe: str | None
    data: str | None


def is_given(places: list[str]) -> bool:
    """Whether a model is named, and no recipes."""
    return any(Path(place).is_dir() or Path(place).suffix == ".py" for place in places)


@cache
def load_project(place: Place, device: str) -> Project:
    """The project; once per process."""
    return load(place.model, recipe=place.recipe, data=place.data, device=device)


@cache
def weights_digest(place: Place, device: str) -> str:
    """A digest of the original's weights; once per process."""
    model = load_project(place, device).model
    assert model is not None
    return checkpoint.contents(model.state_dict())


@cache
def load_split(place: Place, forget: tuple[int, ...], device: str) -> Split:
    """Its data, cut by what is to be forgotten; once per process."""
    return load_project(place, device).split(torch.tensor(forget, dtype=torch.long))


@cache
def load_proxy_split(
    place: Place, forget: tuple[int, ...], device: str, data: Data, tuning: Tuning, seed: int
) -> Split:
    """What a tuning seed practises on; once per process."""
    return proxy_split(load_split(place, forget, device), data, tuning, seed)

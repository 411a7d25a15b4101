"""A folder of diffusers on this machine, and the images that its model was trained on."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from unweave.data.datasets import NAMES
from unweave.data.resident import Resident
from unweave.files import sha256, write_atomically
from unweave.generate import MANIFEST
from unweave.problem import Split
from unweave.run.generation import Generation
from unweave.run.recipe import Recipe
from unweave.run.setup import Data
from unweave.run.stage import split_of
from unweave.unlearn import Pretrained

CONFIGS = ("model_index.json", "config.json")
WEIGHTS = "diffusion_pytorch_model*"
Write = Callable[[nn.Module, Path, Mapping[str, object]], object]
"""Writes a model into a folder, with what is said of it."""


@dataclass(frozen=True)
class Local:
    """A denoiser with its images.

    Args:
        model: The denoiser.
        fresh: Makes one of the same architecture with fresh weights.
        family: How it is trained and examined: as a recipe has it, but with its own noise and conditions.
        split: Its images, and what a recipe forgets.
        weights: SHA-256 of the file with its weights.
        write: Writes a copy of the folder with another model's weights, and what is said of them.
    """

    model: nn.Module
    fresh: Callable[[], nn.Module]
    family: Generation
    split: Split
    weights: str
    write: Write


def is_local(folder: Path) -> bool:
    """Whether a folder is one of diffusers, perhaps without its configuration."""
    return any((folder / name).exists() for name in CONFIGS) or any(folder.glob(WEIGHTS))


def read(folder: Path, data: str | None, recipe: Recipe | None, device: str) -> Local:
    """A folder with its images.

    Args:
        folder: Of diffusers.
        data: A folder or file of images, or the name of a data set; what the recipe says if None.
        recipe: How the model was trained, and how images are drawn from it.
        device: Where images and model are put.

    Raises:
        ValueError: If the folder, the images and the recipe can't be used or do not fit together.
    """
    try:
        from unweave.generate import folder as checkpoint
    except ImportError as error:
        raise ValueError(str(error)) from error
    given = Generation() if recipe is None else recipe.generation
    if given is None:
        raise ValueError("--recipe must be one of a generator, found a recipe without a table generation")
    checkpoint.refuse_unsupported(folder)
    split = split_of(data_of(data, recipe), family=given, device=device)
    found = checkpoint.load(folder, n_classes=split.n_classes)
    refuse_other_size(split, found.shape)
    # the default is guided; who asks for guidance in a recipe hears that there is none
    plain = given if found.null is not None or recipe is not None else unguided(given)
    return Local(
        found.model.to(device),
        found.fresh,
        replace(plain, schedule=found.schedule, null=found.null),
        split,
        sha256(folder / found.component / checkpoint.WEIGHTS),
        lambda model, out, facts: checkpoint.save(found, model, out, facts),
    )


def writer(family: Generation, n_classes: int) -> Write:
    """Writes a model that a recipe trained as a folder that `read` takes: with its noise and conditions."""
    task = family.task(n_classes)

    def write(model: nn.Module, out: Path, facts: Mapping[str, object]) -> None:
        if isinstance(model, Pretrained):
            model.save_pretrained(str(out))
            known = {"n_classes": n_classes, "null": task.null, "schedule": asdict(task.schedule)}
            write_atomically(out / MANIFEST, json.dumps({**known, **facts}, indent=2) + "\n")

    return write


def data_of(given: str | None, recipe: Recipe | None) -> Data:
    """The images, and what a recipe says of them; without one the first class stands for any."""
    if given is None:
        if recipe is None:
            raise ValueError(
                "a folder of diffusers does not hold the images that its model was trained on: name them "
                "with --data, or name a recipe with --recipe"
            )
        return recipe.data
    name, folder = (given, None) if given in NAMES else ("images", given)
    known = Data("images", forget="class") if recipe is None else recipe.data
    return replace(known, name=name, folder=folder)


def unguided(family: Generation) -> Generation:
    """The family with images that are drawn without guidance."""
    return replace(family, sampler=replace(family.sampler, guidance=1.0))


def refuse_other_size(split: Split, shape: tuple[int, int, int]) -> None:
    """Raises if the images are not of the size that the model denoises."""
    for source in (split.train, split.held_out):
        assert isinstance(source, Resident)
        found = list(source.inputs.shape[1:])
        if found != list(shape):
            raise ValueError(
                f"the model denoises images of shape {list(shape)} (channel, height, width), found {found}: "
                "bring the data to that size"
            )

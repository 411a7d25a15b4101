"""A local diffusers folder, and the images that its model was trained on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from unweave.bench.recipe import Recipe
from unweave.bench.recipe import load as load_recipe
from unweave.bench.setup import Data
from unweave.bench.split_data import make_split
from unweave.cli.project.project import Project
from unweave.cli.project.recipe import make_retraining
from unweave.cli.project.text_to_image import refuse_pipeline
from unweave.data.datasets import NAMES
from unweave.data.encoded_images import EncodedImages, refuse_random_images
from unweave.data.in_memory import Resident
from unweave.families.diffusion import DiffusionFamily, denoisers
from unweave.families.family import Write
from unweave.record.checkpoint import contents
from unweave.record.files import sha256
from unweave.split import Split

if TYPE_CHECKING:
    from unweave.tasks.diffusion.folder import Denoiser

CONFIGS = ("model_index.json", "config.json")
WEIGHTS = "diffusion_pytorch_model*"


@dataclass(frozen=True)
class LocalDenoiser:
    """A denoiser with its images.

    Args:
        model: The denoiser.
        fresh: Makes a denoiser of the same architecture with fresh weights.
        family: Its family, with the settings of a recipe, but its own noise and conditions.
        split: Its images, and the forget set of a recipe.
        weights: SHA-256 of the file with its weights.
        write: Writes a copy of the folder with another model's weights, and facts about them.
        forgotten: The classes forgotten by earlier edits.
    """

    model: nn.Module
    fresh: Callable[[], nn.Module]
    family: DiffusionFamily
    split: Split
    weights: str
    write: Write
    forgotten_classes: tuple[int, ...]


def is_local(folder: Path) -> bool:
    """Whether a folder is a diffusers folder, even without its configuration."""
    return any((folder / name).exists() for name in CONFIGS) or any(folder.glob(WEIGHTS))


def read_folder(place: Path, data: str | None, recipe: Recipe | None, device: str) -> LocalDenoiser:
    """Reads a diffusers folder and its images.

    Args:
        place: A diffusers folder.
        data: A folder or file of images, or the name of a data set; that of the recipe if None.
        recipe: The recipe of the model's training, and of drawing images.
        device: The device of images and model.

    Raises:
        ValueError: If the folder, the images and the recipe can't be used or do not fit together.
    """
    try:
        from unweave.tasks.diffusion import folder, folder_config
    except ImportError as error:
        raise ValueError(str(error)) from error
    refuse_pipeline(place)
    generation = DiffusionFamily() if recipe is None else denoisers(recipe.family)
    folder_config.refuse_unsupported(place)
    split = make_split(data_of(data, recipe), family=generation, device=device)
    denoiser = folder.load(place, n_classes=split.n_classes)
    refuse_other_size(split, image_shape(denoiser))
    # the default is guided; guidance in a recipe raises an error
    base = generation if denoiser.null is not None or recipe is not None else without_guidance(generation)
    family = replace(base, schedule=denoiser.schedule, null=denoiser.null)
    if denoiser.autoencoder is not None:
        family, split = with_latents(family, split, denoiser, device)
    return LocalDenoiser(
        denoiser.model.to(device),
        denoiser.fresh,
        family,
        split,
        sha256(place / denoiser.component / folder.WEIGHTS),
        lambda model, out, facts: folder.save(denoiser, model, out, facts),
        denoiser.forgotten_classes,
    )


def image_shape(denoiser: "Denoiser") -> tuple[int, int, int]:
    """Channels, height and width of the images that a denoiser is for, also if it denoises latents."""
    if denoiser.autoencoder is None:
        return denoiser.shape
    from unweave.tasks.diffusion.autoencoder import image_shape_of

    return image_shape_of(denoiser.autoencoder, denoiser.shape)


def with_latents(
    family: DiffusionFamily, split: Split, denoiser: "Denoiser", device: str
) -> tuple[DiffusionFamily, Split]:
    """The family of a denoiser of latents, and the images with their latents, encoded once."""
    from unweave.audits.diffusion.latent_exam import LatentSpace
    from unweave.families.latent_diffusion import of_latents
    from unweave.tasks.diffusion.autoencoder import encode_images

    assert denoiser.autoencoder is not None
    autoencoder = denoiser.autoencoder
    space = LatentSpace(contents(autoencoder.state_dict()), denoiser.shape, autoencoder)
    sources: list[EncodedImages] = []
    for source in (split.train, split.held_out):
        assert isinstance(source, Resident)
        refuse_random_images(source)
        encoded_images = EncodedImages(source, encode_images(autoencoder, source), space.digest)
        sources.append(encoded_images.to(device))
    encoded_split = Split(sources[0], split.forget, sources[1], calibration=split.calibration.tolist())
    return of_latents(family, space), encoded_split


def from_local(folder: Path, recipe: str | None, data: str | None, device: str) -> Project:
    """The project of a denoiser in a diffusers folder; a recipe allows to retrain it."""
    loaded_recipe = None if recipe is None else load_recipe(recipe)
    local = read_folder(folder, data, loaded_recipe, device)
    if recipe is not None and local.family.null is None:  # methods that need no null condition
        loaded_recipe = load_recipe(recipe, {"generation": {"null": None}})
    facts = {"weights": local.weights, "data": local.split.digest("mixed"), "family": local.family.key}
    facts |= {"train": None if loaded_recipe is None else repr(loaded_recipe.train), "device": device}
    return Project(
        facts=facts,
        family=local.family,
        train=local.split.train,
        test=local.split.held_out,
        calibration=local.split.calibration.tolist(),
        model=local.model,
        forget=None if loaded_recipe is None else local.split.forget,
        methods=local.family.methods if loaded_recipe is None else loaded_recipe.methods,
        find_method=local.family.method_named if loaded_recipe is None else loaded_recipe.method,
        headline=None if loaded_recipe is None else loaded_recipe.headline,
        retrain=None
        if loaded_recipe is None
        else make_retraining(loaded_recipe, local.family, local.fresh, device),
        build=local.fresh,
        source=folder,
        write=local.write,
        forgotten_classes=local.forgotten_classes,
    )


def data_of(images: str | None, recipe: Recipe | None) -> Data:
    """The data of a recipe with the given images; without a recipe the forget set is the first class."""
    if images is None:
        if recipe is None:
            raise ValueError(
                "a folder of diffusers does not hold the images that its model was trained on: name them "
                "with --data, or name a recipe with --recipe"
            )
        return recipe.data
    name, folder = (images, None) if images in NAMES else ("images", images)
    data = Data("images", forget="class") if recipe is None else recipe.data
    return replace(data, name=name, folder=folder)


def without_guidance(family: DiffusionFamily) -> DiffusionFamily:
    """The family with a sampler without guidance."""
    return replace(family, sampler=replace(family.sampler, guidance=1.0))


def refuse_other_size(split: Split, shape: tuple[int, int, int]) -> None:
    """Raises if the images do not have the size of the model."""
    for source in (split.train, split.held_out):
        assert isinstance(source, Resident)
        actual = list(source.inputs.shape[1:])
        if actual != list(shape):
            raise ValueError(
                f"the model draws images of shape {list(shape)} (channel, height, width), found {actual}: "
                "bring the data to that size"
            )

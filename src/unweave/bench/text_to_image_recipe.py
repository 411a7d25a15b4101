"""Recipes of small text-to-image models: what is drawn, the models and their training, and methods."""

from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from diffusers import DDIMScheduler

from unweave.bench.text_to_image_shapes import AutoencoderShape, DenoiserShape, TextShape
from unweave.choices import explain_unknown
from unweave.data.captioned_drawings import SUBJECTS, Drawings
from unweave.descent.descend import Descent
from unweave.tables import Table, read, read_toml, require_mapping
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.schedule import Schedule

FOLDER = files("unweave").joinpath("recipes", "text-to-image")

METHODS = "methods"
"""The key of the settings of methods, which are no part of the models."""


@dataclass(frozen=True)
class TextToImageRecipe:
    """A small text-to-image model.

    Args:
        drawings: The images with captions.
        autoencoder: The autoencoder.
        train: The training of denoiser and text encoder, of an original or a reference.
        text_encoder: The text encoder.
        denoiser: The denoiser.
        schedule: The noise schedule.
        length: The largest number of tokens of a prompt.
        drop: The probability of the empty prompt in training.
        sampler: How to draw images.
        save_every: The largest number of steps lost by an interrupted training; all if None.
    """

    drawings: Drawings
    autoencoder: AutoencoderShape
    train: Descent
    text_encoder: TextShape = TextShape()
    denoiser: DenoiserShape = DenoiserShape()
    schedule: Schedule = Schedule("scaled_linear", 1000, 0.00085, 0.012, prediction="v_prediction", offset=1)
    length: int = 16
    drop: float = 0.1
    sampler: Sampler = Sampler("dpm", steps=15, guidance=3.0)
    save_every: int | None = None

    def with_data(self, folder: str | Path) -> "TextToImageRecipe":
        """The recipe with the images of a folder, such as Fashion-MNIST's four files.

        Raises:
            ValueError: If what it draws needs no folder.
        """
        subject = self.drawings.subject
        if SUBJECTS[subject].data == "digit-images":
            raise ValueError(f"{subject} are scikit-learn's and need no folder: leave {folder} out")
        return replace(self, drawings=replace(self.drawings, folder=str(folder)))

    def scheduler(self) -> DDIMScheduler:
        """The scheduler of the pipeline."""
        schedule = self.schedule
        return DDIMScheduler(
            num_train_timesteps=schedule.steps,
            beta_schedule=schedule.kind,
            beta_start=schedule.start,
            beta_end=schedule.end,
            trained_betas=list(schedule.betas) or None,
            prediction_type=schedule.prediction,
            rescale_betas_zero_snr=schedule.zero_snr,
            clip_sample=schedule.clip is not None,
            clip_sample_range=1.0 if schedule.clip is None else schedule.clip,
            set_alpha_to_one=schedule.ends_clean,
            steps_offset=schedule.offset,
            timestep_spacing="trailing",
        )


def text_to_image_recipe(place: str | Path) -> TextToImageRecipe:
    """Reads a recipe by the path of its TOML file, or by the name of one in the package.

    Raises:
        ValueError: If there is no such recipe, or it is invalid.
    """
    table = read_toml(recipe_file(place))
    return read(TextToImageRecipe, {key: table[key] for key in table if key != METHODS}, "")


def method_tables(place: str | Path) -> Table:
    """The settings of methods in a recipe, by name; empty if it has none.

    Raises:
        ValueError: If there is no such recipe, or they are no tables.
    """
    tables = require_mapping(read_toml(recipe_file(place)).get(METHODS, {}), METHODS)
    return {name: require_mapping(each, f"{METHODS}.{name}") for name, each in tables.items()}


def recipe_file(place: str | Path) -> Path | Traversable:
    """The file of a recipe.

    Raises:
        ValueError: If there is no such recipe.
    """
    if Path(place).suffix == ".toml":
        if not Path(place).is_file():
            raise ValueError(f"expected a recipe at {place}, found no such file")
        return Path(place)
    names = sorted(each.name.removesuffix(".toml") for each in FOLDER.iterdir())
    if place not in names:
        raise ValueError(explain_unknown("text-to-image recipe", str(place), names))
    return FOLDER.joinpath(f"{place}.toml")

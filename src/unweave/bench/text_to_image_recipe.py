"""Recipes of small text-to-image models: what is drawn, the parts of the pipeline and their training."""

import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from unweave.choices import explain_unknown
from unweave.data.captioned_drawings import SUBJECTS, Drawings
from unweave.descent.descend import Descent
from unweave.tables import read
from unweave.tasks.diffusion.components import Settings, build_text_encoder, build_unet
from unweave.tasks.diffusion.sample import Sampler
from unweave.tasks.diffusion.schedule import Schedule

FOLDER = files("unweave").joinpath("recipes", "text-to-image")


@dataclass(frozen=True)
class AutoencoderShape:
    """An `AutoencoderKL` without attention.

    Args:
        widths: Channels at each resolution; each is half of the one before.
        latents: Channels of a latent.
        layers: Residual blocks at each resolution.
        groups: Groups of the normalisation.
        absolute: The weight of the mean absolute error (see `Reconstruction`).
        divergence: The weight of the divergence of latents.
        seed: The seed of its training; original and references share one autoencoder.
        train: Its training.
    """

    train: Descent
    widths: tuple[int, ...] = (16, 32)
    latents: int = 4
    layers: int = 1
    groups: int = 8
    absolute: float = 0.3
    divergence: float = 1e-3
    seed: int = 0

    def build(self, size: int) -> AutoencoderKL:
        """Builds it for square images, with fresh weights from torch's global generator."""
        settings: Settings = {
            "sample_size": size,
            "block_out_channels": self.widths,
            "down_block_types": ("DownEncoderBlock2D",) * len(self.widths),
            "up_block_types": ("UpDecoderBlock2D",) * len(self.widths),
            "layers_per_block": self.layers,
            "latent_channels": self.latents,
            "norm_num_groups": self.groups,
            "mid_block_add_attention": False,
        }
        return AutoencoderKL(**settings)

    def latent(self, size: int) -> tuple[int, int, int]:
        """Channels, height and width of a latent of a square image."""
        side = size // 2 ** (len(self.widths) - 1)
        return self.latents, side, side


@dataclass(frozen=True)
class TextShape:
    """A `CLIPTextModel`.

    Args:
        hidden: The width of its embeddings.
        layers: The number of layers.
        heads: Attention heads of a layer.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 4

    def build(self, tokenizer: CLIPTokenizer) -> CLIPTextModel:
        """Builds it for a tokenizer, with fresh weights from torch's global generator.

        The embeddings of tokens start with a deviation of one, not of 0.02: the words differ at once, so the
        denoiser learns what they mean in fewer steps.
        """
        settings: Settings = {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokenizer.model_max_length,
            "hidden_size": self.hidden,
            "intermediate_size": 2 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "projection_dim": self.hidden,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        model = build_text_encoder(settings)
        tokens = model.get_input_embeddings()
        assert isinstance(tokens, nn.Embedding)
        nn.init.normal_(tokens.weight)
        return model


@dataclass(frozen=True)
class DenoiserShape:
    """A `UNet2DConditionModel` with cross-attention at its lowest resolution.

    Args:
        widths: Channels at each resolution.
        layers: Residual blocks at each resolution, on the way down.
        head: The setting `attention_head_dim` of diffusers: attention heads of a block.
        groups: Groups of the normalisation.
    """

    widths: tuple[int, ...] = (32, 64)
    layers: int = 1
    head: int = 4
    groups: int = 8

    def build(self, latent: tuple[int, int, int], text: TextShape) -> UNet2DConditionModel:
        """Builds it with fresh weights from torch's global generator."""
        plain = len(self.widths) - 1
        settings: Settings = {
            "sample_size": latent[1],
            "in_channels": latent[0],
            "out_channels": latent[0],
            "block_out_channels": self.widths,
            "layers_per_block": self.layers,
            "down_block_types": (*("DownBlock2D",) * plain, "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", *("UpBlock2D",) * plain),
            "cross_attention_dim": text.hidden,
            "attention_head_dim": self.head,
            "norm_num_groups": self.groups,
        }
        model = build_unet(settings)
        arrange(model, torch.channels_last)
        return model


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
        return DDIMScheduler(
            num_train_timesteps=self.schedule.steps,
            beta_schedule=self.schedule.kind,
            beta_start=self.schedule.start,
            beta_end=self.schedule.end,
            prediction_type=self.schedule.prediction,
            clip_sample=False,
            steps_offset=self.schedule.offset,
            timestep_spacing="trailing",
        )


def arrange(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Arranges the weights of convolutions in memory, in place: with channels last, a CPU takes less time."""
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=memory_format)


def text_to_image_recipe(place: str | Path) -> TextToImageRecipe:
    """Reads a recipe by the path of its TOML file, or by the name of one in the package.

    Raises:
        ValueError: If there is no such recipe, or it is invalid.
    """
    try:
        return read(TextToImageRecipe, tomllib.loads(recipe_text(place)), "")
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{place} is not TOML: {error}") from error


def recipe_text(place: str | Path) -> str:
    """The text of a recipe."""
    if Path(place).suffix == ".toml":
        if not Path(place).is_file():
            raise ValueError(f"expected a recipe at {place}, found no such file")
        return Path(place).read_text(encoding="utf-8")
    names = sorted(each.name.removesuffix(".toml") for each in FOLDER.iterdir())
    if place not in names:
        raise ValueError(explain_unknown("text-to-image recipe", str(place), names))
    return FOLDER.joinpath(f"{place}.toml").read_text(encoding="utf-8")

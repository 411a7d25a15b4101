"""The components of a pipeline of diffusers, each read from its own folder in float32.

Needs the extra `unweave[diffusion]`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from unweave.tasks.diffusion.file_names import WEIGHTS
from unweave.tasks.diffusion.folder_config import name_file_in_errors, read
from unweave.tasks.diffusion.weights import fill, rename_as, weights_of

Settings = dict[str, Any]
"""The configuration of a model, without entries about its file."""

OTHER_CONDITIONS = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)
"""Settings of a denoiser that needs more than a prompt."""

Component = TypeVar("Component", bound=nn.Module)


def read_component(folder: Path, build: Callable[[Settings], Component], name: str = WEIGHTS) -> Component:
    """Reads a component, in evaluation mode.

    Args:
        folder: Its folder.
        build: Makes it with fresh weights from its configuration.
        name: The file of its weights.

    Raises:
        ValueError: If a file is missing, sharded, truncated or unsupported.
    """
    path = folder / "config.json"
    settings = {key: value for key, value in read(path).items() if not key.startswith("_")}
    with name_file_in_errors(path):
        model = build_component(build, settings)
    fill(model, rename_as(weights_of(folder, name), model.state_dict()))
    return model.eval()


def build_component(build: Callable[[Settings], Component], settings: Settings) -> Component:
    """Builds a component with fresh weights from torch's global generator.

    Raises:
        ValueError: If the configuration is not supported.
    """
    try:
        return build(settings)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"this version of diffusers can't make the model of the config: {error}") from error


def build_unet(settings: Settings) -> UNet2DConditionModel:
    """Builds a denoiser with fresh weights.

    Raises:
        ValueError: If it needs more than a prompt.
    """
    for key in OTHER_CONDITIONS:
        if settings.get(key) is not None:
            raise ValueError(f"{key} must be null, found {settings[key]!r}: only prompts are supported")
    return UNet2DConditionModel(**settings)


def build_text_encoder(settings: Settings) -> CLIPTextModel:
    """Builds a text encoder with fresh weights."""
    return CLIPTextModel(CLIPTextConfig.from_dict(settings))

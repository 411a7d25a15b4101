"""Stable Diffusion 1.x and 2.x as one file of weights, written as a pipeline that `stable_diffusion` reads.

The names of weights are converted as `from_single_file` of diffusers does, but every weight must be there:
diffusers leaves fresh weights where the file has none. The configuration comes from a local folder, and
nothing is downloaded. Needs the extra `unweave[diffusion]`.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.loaders import single_file_utils as names
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unweave.tasks.diffusion.components import Settings, build_component, build_text_encoder, build_unet
from unweave.tasks.diffusion.file_names import INDEX, WEIGHTS
from unweave.tasks.diffusion.folder_config import name_file_in_errors, read
from unweave.tasks.diffusion.stable_diffusion import FILES, refuse_other_pipeline
from unweave.tasks.diffusion.weights import refuse_other, rename_as

State = dict[str, Tensor]

OTHER_MODELS: Mapping[str, str] = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "control_model.": "ControlNet",
    "lora_": "low-rank additions",
}
"""Models that are not supported, by a part of the names of their weights."""

PREFIXES: Mapping[str, str] = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
"""The beginning of the names of the weights of each component."""

OPEN_CLIP = "cond_stage_model.model."
"""That of the text encoder of Stable Diffusion 2.x."""

CONFIGURED = ("tokenizer", "scheduler", "feature_extractor")
"""Components without weights."""

CHECKER = "safety_checker"
"""A component that no file of weights holds: it is kept if the configuration has its weights."""


def write_pipeline(file: Path, config: Path, out: Path) -> None:
    """Writes the weights of one file as a pipeline.

    Args:
        file: The weights, in safetensors.
        config: A folder with the configuration of the pipeline: `model_index.json`, and a folder for each
            component. Weights in it are ignored, but for those of a safety checker, which is copied.
        out: A folder that does not exist yet.

    Raises:
        ValueError: If the file holds no weights, another model, or what does not fit the configuration.
    """
    refuse_other_pipeline(config)
    weights = read_weights(file)
    refuse_other_model(file, weights)
    states = {
        name: convert_component(name, convert, weights, config) for name, convert in CONVERSIONS.items()
    }
    for component, state in states.items():
        (out / component).mkdir(parents=True)
        shutil.copyfile(config / component / "config.json", out / component / "config.json")
        save_file(state, out / component / FILES.get(component, WEIGHTS), {"format": "pt"})
    has_checker = any((config / CHECKER).glob("*.safetensors"))
    for component in (*CONFIGURED, *([CHECKER] if has_checker else [])):
        if (config / component).is_dir():
            shutil.copytree(config / component, out / component)
    index = read(config / INDEX)
    absent_entries = {
        name: [None, None]
        for name, entry in index.items()
        if isinstance(entry, list) and not (out / name).is_dir()
    }
    checker_entry = {} if has_checker else {"requires_safety_checker": False}
    (out / INDEX).write_text(json.dumps({**index, **absent_entries, **checker_entry}, indent=2))


def read_weights(file: Path) -> State:
    """Reads a file of weights.

    Raises:
        ValueError: If there is no such file, or it is not safetensors.
    """
    if not file.is_file():
        raise ValueError(f"expected a file of weights, found none at {file}")
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{file} may be a pickle, which can run code when it is read: convert it to .safetensors from "
            "torch.load(..., weights_only=True)"
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or no safetensors file: {error}") from error


def refuse_other_model(file: Path, weights: State) -> None:
    """Raises if a file holds another model, or not all components of one."""
    for mark, model in OTHER_MODELS.items():
        if any(mark in name for name in weights):
            raise ValueError(
                f"{file} holds {model}, as {mark!r} in the names of its weights says: only Stable Diffusion "
                "1.x and 2.x are supported"
            )
    for component, prefix in PREFIXES.items():
        if not any(name.startswith(prefix) for name in weights):
            raise ValueError(
                f"{file} must hold a whole pipeline, found no {component} (weights named {prefix}...): take "
                "the file of the whole model"
            )


def convert_component(component: str, convert: "Convert", weights: State, config: Path) -> State:
    """The weights of a component under the names of diffusers and transformers.

    Raises:
        ValueError: If a weight is missing, unknown, or of another shape than the configuration says.
    """
    path = config / component / "config.json"
    settings = {key: value for key, value in read(path).items() if not key.startswith("_")}
    with name_file_in_errors(path):
        with torch.device("meta"):
            model = build_component(BUILD[component], settings)
        state = rename_as(convert(weights, settings, model), model.state_dict())
        refuse_other(model.state_dict(), state)
    return {name: value.contiguous() for name, value in state.items() if not value.is_meta}


def convert_unet(weights: State, settings: Settings, model: nn.Module) -> State:
    """The weights of the denoiser; those of an exponential average beside them are ignored."""
    return names.convert_ldm_unet_checkpoint(weights, settings)


def convert_autoencoder(weights: State, settings: Settings, model: nn.Module) -> State:
    """The weights of the autoencoder."""
    return names.convert_ldm_vae_checkpoint(weights, settings)


def convert_text_encoder(weights: State, settings: Settings, model: nn.Module) -> State:
    """The weights of the text encoder, of CLIP or OpenCLIP."""
    if any(name.startswith(OPEN_CLIP) for name in weights):
        state = names.convert_open_clip_checkpoint(model, weights, prefix=OPEN_CLIP)
        return {name: value for name, value in state.items() if name != "text_projection.weight"}
    return names.convert_ldm_clip_checkpoint(weights)


Convert = Callable[[State, Settings, nn.Module], State]
CONVERSIONS: Mapping[str, Convert] = {
    "unet": convert_unet,
    "vae": convert_autoencoder,
    "text_encoder": convert_text_encoder,
}
"""The conversion of each component."""

BUILD: Mapping[str, Callable[[Settings], nn.Module]] = {
    "unet": build_unet,
    "vae": lambda settings: AutoencoderKL(**settings),
    "text_encoder": build_text_encoder,
}
"""Makes each component of its configuration."""

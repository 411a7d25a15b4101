"""The file of low-rank additions that diffusers' `load_lora_weights` takes. Needs `unweave[diffusion]`."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unweave.tasks.diffusion.prompts import Prompted
from unweave.tasks.diffusion.scopes import add_to_attention
from unweave.tasks.low_rank import addition_weights

FILE = "pytorch_lora_weights.safetensors"
PREFIX = "unet."


def save_low_rank(model: Prompted, out: str | Path) -> Path:
    """Writes the low-rank additions of a model as a file that diffusers' `load_lora_weights` takes.

    Raises:
        ValueError: If the model has none, or the folder exists.
    """
    weights = addition_weights(model.unet)
    if not weights:
        raise ValueError("the model has no low-rank additions: load it with scope 'lora'")
    if Path(out).exists():
        raise ValueError(f"{out} exists: name a new folder")
    layers: dict[str, nn.Module | Tensor] = {
        name: p.detach().cpu().contiguous() for name, p in weights.items()
    }
    StableDiffusionPipeline.save_lora_weights(str(out), unet_lora_layers=layers)
    return Path(out)


@torch.no_grad()
def add_from_file(model: Prompted, folder: Path) -> None:
    """Adds the low-rank additions of a folder to a denoiser, in place.

    Raises:
        ValueError: If the folder has no such file, or it does not fit the denoiser.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"expected low-rank additions in {path}, found no such file")
    try:
        weights = {name.removeprefix(PREFIX): value for name, value in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not safetensors: {error}") from error
    ranks = {len(value) for name, value in weights.items() if name.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise ValueError(f"additions must have one rank, found {sorted(ranks)} in {path}")
    add_to_attention(model.unet, *ranks, seed=0)
    parameters = addition_weights(model.unet)
    if {name: p.shape for name, p in parameters.items()} != {name: p.shape for name, p in weights.items()}:
        raise ValueError(
            f"the additions in {path} are of another model: load the pipeline that they were made for"
        )
    for name, p in parameters.items():
        p.copy_(weights[name])

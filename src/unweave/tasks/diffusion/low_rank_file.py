"""Reads the file of low-rank additions that `stable_diffusion.save_low_rank` writes."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unweave.tasks.diffusion.prompts import Prompted
from unweave.tasks.diffusion.scopes import add_to_attention
from unweave.tasks.low_rank import addition_weights

FILE = "pytorch_lora_weights.safetensors"
PREFIX = "unet."


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
    own = addition_weights(model.unet)
    if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in weights.items()}:
        raise ValueError(
            f"the additions in {path} are of another model: load the pipeline that they were made for"
        )
    for name, p in own.items():
        p.copy_(weights[name])

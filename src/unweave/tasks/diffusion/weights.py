"""The weights of a denoiser on disk: one safetensors file, read as float32."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from unweave.record.checkpoint import as_float32
from unweave.tasks.diffusion.file_names import WEIGHTS
from unweave.tasks.diffusion.folder_config import component_of
from unweave.tasks.diffusion.scopes import merge_low_rank

OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the attention of an autoencoder in files from before diffusers 0.17."""

POSITIONS = "embeddings.position_ids"
"""A buffer of constants in files of text encoders from before transformers 4.31."""


def weights_of(component: Path, name: str = WEIGHTS) -> dict[str, Tensor]:
    """Reads the weights in float32.

    Args:
        component: The folder of the model.
        name: The file of its weights.

    Raises:
        ValueError: If they are sharded, in another format, truncated, or not finite.
    """
    path = component / name
    if not component.is_dir():
        raise ValueError(f"expected the folder {component} of a pipeline, found none")
    if not path.exists():
        files = sorted(f.name for f in component.iterdir() if f.suffix in (".safetensors", ".bin", ".ckpt"))
        if list(component.glob("*.index.json")):
            raise ValueError(f"the weights in {component} are sharded: save them as one {name} first")
        raise ValueError(f"{component} has no {name}, found {', '.join(files) or 'no weights'}")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error
    return as_float32(weights, path)


def layout_of(path: Path) -> dict[str, Tensor]:
    """The names in a file of weights for `rename_as`: with empty tensors, but for buffers of positions."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) if POSITIONS in name else torch.empty(0) for name in names}


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies weights into a model."""
    refuse_other(model.state_dict(), state)
    model.load_state_dict(state)


def refuse_other(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> None:
    """Raises if the names or shapes of weights differ."""
    for name in sorted(expected.keys() | actual.keys()):
        shapes = [list(state[name].shape) if name in state else None for state in (expected, actual)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"weights must fit the configuration: of {name!r} expected shape {shapes[0]}, "
                f"found {shapes[1]}"
            )


def differ(before: nn.Module, after: nn.Module) -> bool:
    """Whether two models differ in a weight or buffer.

    Raises:
        ValueError: If they differ in the names or shapes of weights.
    """
    first, second = before.state_dict(), after.state_dict()
    refuse_other(first, second)
    return any(not torch.equal(value, second[name].cpu()) for name, value in first.items())


def refuse_other_model(folder: Path, model: nn.Module) -> None:
    """Raises if the weights in a folder differ from the model's, with its low-rank additions merged."""
    component = folder / component_of(folder)
    weights, expected = weights_of(component), merge_low_rank(model).state_dict()
    is_same = weights.keys() == expected.keys() and all(
        torch.equal(value, expected[name].cpu()) for name, value in weights.items()
    )
    if not is_same:
        raise ValueError(
            f"{component / WEIGHTS} does not hold the model of this run, its weights have changed since: put "
            "the earlier ones back, or run forget again"
        )


def rename_as(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames weights as another version of diffusers or transformers names them.

    Text encoders lost the prefix `text_model.` and a buffer of positions, autoencoders the old names of
    attention.
    """
    names = {plain_name(name): name for name in like}
    weights = {names.get(plain_name(name), name): value for name, value in state.items()}
    buffers = {name: value for name, value in like.items() if POSITIONS in name}
    return {name: value for name, value in weights.items() if POSITIONS not in name} | buffers


def plain_name(name: str) -> str:
    """The name of a weight in the present version of diffusers and transformers."""
    plain = name.removeprefix("text_model.")
    return re.sub(
        r"(attentions\.\d+)\.(query|key|value|proj_attn)\.",
        lambda match: f"{match[1]}.{OLD_NAMES[match[2]]}.",
        plain,
    )

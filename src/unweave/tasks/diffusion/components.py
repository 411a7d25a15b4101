"""The components of a pipeline of diffusers, each read from its own folder in float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from unweave.tasks.diffusion.file_names import WEIGHTS
from unweave.tasks.diffusion.folder_config import name_file_in_errors, read
from unweave.tasks.diffusion.weights import fill, rename_as, weights_of

Settings = dict[str, Any]
"""The configuration of a model, without entries about its file."""

Part = TypeVar("Part", bound=nn.Module)


def read_part(folder: Path, build: Callable[[Settings], Part], name: str = WEIGHTS) -> Part:
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
        model = build_part(build, settings)
    fill(model, rename_as(weights_of(folder, name), model.state_dict()))
    return model.eval()


def build_part(build: Callable[[Settings], Part], settings: Settings) -> Part:
    """Builds a component with fresh weights from torch's global generator.

    Raises:
        ValueError: If the configuration is not supported.
    """
    try:
        return build(settings)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"this version of diffusers can't make the model of the config: {error}") from error

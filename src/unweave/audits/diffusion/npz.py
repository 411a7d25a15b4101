"""The images that a generator draws, in a file: arrays named by their class."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from unweave.record.files import draft


def save(images: Mapping[int, Tensor], path: Path) -> None:
    """Writes images by class, atomically."""
    arrays: dict[str, Any] = {str(label): each.numpy() for label, each in images.items()}
    with draft(path) as beside:
        with beside.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(beside, path)


def load(path: Path) -> dict[int, Tensor]:
    """Reads the images.

    Raises:
        ValueError: If the file is truncated.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {int(label): torch.from_numpy(arrays[label]) for label in arrays.files}
    except (ValueError, EOFError, BadZipFile, zlib.error) as error:
        again = f"delete it and {path.with_suffix('.json').name}, and it is made again"
        raise ValueError(f"{path} is truncated or holds no images ({error}): {again}") from error

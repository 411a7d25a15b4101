"""Sharded tensors on disk, by `torch.distributed.checkpoint`; any number of processes can read them."""

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unweave.weights.sharded import as_sharded, local_rows

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

PIECES = ".metadata"
"""What `torch.distributed.checkpoint` writes last."""

Likeness = Callable[[str], Tensor | None]
"""Maps the name of a tensor to the weight that it is sharded like, if there is one."""


def write_pieces(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes sharded tensors, each process its own rows, and whole ones once."""
    from torch.distributed import checkpoint  # takes a second

    with raise_first_failure():
        checkpoint.save(dict(tensors), checkpoint_id=folder)


def read_pieces(folder: Path, like: Likeness) -> dict[str, Tensor]:
    """Reads what `write_pieces` wrote, over any number of processes or in one."""
    from torch.distributed import checkpoint

    tensors = {
        name: empty_like(like(name), size, dtype) for name, size, dtype in stored_tensors(folder / PIECES)
    }
    with raise_first_failure(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is one process
        checkpoint.load(tensors, checkpoint_id=folder)
    return tensors


def empty_like(weight: Tensor | None, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory for a tensor, sharded and placed as a weight if it has the weight's shape."""
    if weight is None or weight.shape != size:
        return torch.empty(size, dtype=dtype)
    return as_sharded(torch.empty_like(local_rows(weight), dtype=dtype), weight)


def stored_tensors(path: Path) -> Iterator[tuple[str, torch.Size, torch.dtype]]:
    """The name, shape and type of every tensor in a distributed checkpoint.

    Raises:
        ValueError: If the file holds anything else.
    """
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    for name, each in read_metadata(path).state_dict_metadata.items():
        if not isinstance(each, TensorStorageMetadata):
            raise ValueError(f"{path.parent} holds {name!r}, which is no tensor: delete it to start again")
        yield name, each.size, each.properties.dtype


def stored_files(folder: Path) -> list[str]:
    """The names of the files that a distributed checkpoint consists of.

    Raises:
        ValueError: If one is missing: its process wrote to another disk.
    """
    names = {each.relative_path for each in (read_metadata(folder / PIECES).storage_data or {}).values()}
    missing_files = [name for name in sorted(names) if not (folder / name).is_file()]
    if missing_files:
        raise ValueError(
            f"expected {missing_files[0]} in {folder}, found none: all processes need one disk, so "
            "choose a folder that they share"
        )
    return [PIECES, *sorted(names)]


def read_metadata(path: Path) -> "Metadata":
    """The metadata of a distributed checkpoint.

    Raises:
        ValueError: If the file holds anything else.
    """
    from torch.distributed.checkpoint.metadata import Metadata

    try:
        with path.open("rb") as file:
            metadata = PlainMetadata(file).load()
    except (AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path.parent} is no saved state: delete it to start again") from error
    if not isinstance(metadata, Metadata):
        raise ValueError(f"{path.parent} is no saved state: delete it to start again")
    return metadata


class PlainMetadata(pickle.Unpickler):
    """Reads the metadata of a distributed checkpoint, which is a pickle, and runs no other code."""

    def find_class(self, module: str, name: str) -> object:
        """A class that metadata consists of.

        Raises:
            UnpicklingError: For any other.
        """
        plain = (
            module == "torch.distributed.checkpoint.metadata"
            or (module, name) == ("torch.distributed.checkpoint.filesystem", "_StorageInfo")
            or (module, name) in (("torch", "Size"), ("torch.serialization", "_get_layout"))
            or (module.partition(".")[0] == "pathlib" and name.endswith("Path"))
            or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype))
        )
        if not plain or "." in name:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a checkpoint's metadata")
        return super().find_class(module, name)


@contextmanager
def raise_first_failure() -> Iterator[None]:
    """Raises the error of the first process that failed, on every process, as if it were its own."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        first, _ = error.failures[min(error.failures)]
        raise first from None

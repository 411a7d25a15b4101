"""A sharded model on disk, for models that no host can hold: each process writes and reads its own rows."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from unweave.record.checkpoint import (
    EXTRA,
    SIDECAR,
    architecture,
    difference,
    json_state,
    shapes,
    tensors_of,
)
from unweave.record.files import read_object, write_atomically
from unweave.weights.distributed_checkpoint import PIECES, read_pieces, stored_tensors, write_pieces
from unweave.weights.processes import Processes

__all__ = ["load_sharded"]

SHARDED = "sharded"
"""The folder of a sharded model."""


def save_sharded(folder: Path, model: nn.Module, sidecar: Mapping[str, object]) -> None:
    """Writes a sharded model into the folder `sharded`, which replaces an earlier one as a whole.

    It is a checkpoint of `torch.distributed.checkpoint`, with `model.json` in it. All processes must call
    this together, and need one disk.

    Args:
        folder: The folder that gets it.
        model: The model.
        sidecar: JSON values; "architecture" is added.

    Raises:
        OSError: On every process, if one of them can't write.
        ValueError: If a value of its state is neither a tensor nor JSON.
    """
    state, first = model.state_dict(), Processes.current().from_first
    extra, draft = json_state(state), folder / f".{SHARDED}"
    facts = {**sidecar, "architecture": architecture(state), **({EXTRA: extra} if extra else {})}
    first(lambda: _start(draft))
    write_pieces(draft, tensors_of(state))
    first(lambda: _finish(draft, folder / SHARDED, facts))


def load_sharded(model: nn.Module, folder: str | Path) -> dict[str, object]:
    """Loads what `Result.save(folder, sharded=True)` wrote, and returns the facts in its `model.json`.

    All processes that share the model must call this together.

    Args:
        model: A model of the same architecture: sharded over any number of processes, or whole.
        folder: The folder that was saved.

    Raises:
        ValueError: If it holds no sharded model, or one of another architecture.
    """
    place, state = Path(folder) / SHARDED, model.state_dict()
    if not ((place / SIDECAR).is_file() and (place / PIECES).is_file()):
        raise ValueError(f"expected a sharded model in {place}, found none: save a result with sharded=True")
    facts = read_object(place / SIDECAR, ": save the model again")
    extra = facts.get(EXTRA, {})
    found = {name: str(list(size)) for name, size, _ in stored_tensors(place / PIECES)}
    strange = difference(shapes(state), {**found, **dict.fromkeys(extra, "extra state")})
    if strange or facts.get("architecture") != architecture(state):
        raise ValueError(
            f"{place} is of another architecture: {strange or 'its tensors have other types'}; build the "
            "model that was saved"
        )
    model.load_state_dict({**read_pieces(place, tensors_of(state).get), **extra})
    return facts


def _start(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)


def _finish(draft: Path, place: Path, facts: Mapping[str, object]) -> None:
    write_atomically(draft / SIDECAR, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    if place.exists():
        shutil.rmtree(place)
    draft.rename(place)

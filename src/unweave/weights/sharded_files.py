"""A sharded model on disk, for models that no host can hold: each process writes and reads its own rows."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from unweave.record.files import read_object, sha256, write_atomically
from unweave.weights.distributed_checkpoint import (
    PIECES,
    read_pieces,
    stored_files,
    stored_tensors,
    write_pieces,
)
from unweave.weights.processes import Processes

__all__ = ["load_sharded"]

SHARDED = "sharded"
"""The folder of a sharded model."""

DRAFT = f".{SHARDED}"
"""The folder of a sharded model that is being written."""

FILES = "files"
"""The fact with the size in bytes and the SHA-256 of each file, by name."""


def save_sharded(folder: Path, model: nn.Module, sidecar: Mapping[str, object]) -> None:
    """Writes a sharded model into the folder `sharded`, which replaces an earlier one as a whole.

    It is a checkpoint of `torch.distributed.checkpoint`, with `model.json` in it. All processes must call
    this together, and need one disk.

    Args:
        folder: The folder that gets it.
        model: The model.
        sidecar: JSON values; "architecture" and "files" are added.

    Raises:
        OSError: On every process, if one of them can't write.
        ValueError: If a value of its state is neither a tensor nor JSON, or they share no disk.
    """
    state, from_first = model.state_dict(), Processes.current().from_first
    extra, draft, place = json_state(state), folder / DRAFT, folder / SHARDED
    facts = {**sidecar, "architecture": architecture(state), **({EXTRA: extra} if extra else {})}
    from_first(lambda: _start(draft, place))
    write_pieces(draft, tensors_of(state))
    facts[FILES] = _describe_files(draft, from_first(lambda: stored_files(draft)))
    from_first(lambda: _finish(draft, place, facts))


def load_sharded(model: nn.Module, folder: str | Path) -> dict[str, object]:
    """Loads what `Result.save(folder, sharded=True)` wrote, and returns the facts in its `model.json`.

    All processes that share the model must call this together. They share the work of checking the files.

    Args:
        model: A model of the same architecture: sharded over any number of processes, or whole.
        folder: The folder that was saved.

    Raises:
        ValueError: If it holds no sharded model, or one of another architecture, or a file is missing or is
            not as it was written.
    """
    place, state = Path(folder) / SHARDED, model.state_dict()
    facts = read_undamaged(place)
    extra = facts.get(EXTRA, {})
    sizes = {name: str(list(size)) for name, size, _ in stored_tensors(place / PIECES)}
    mismatch = difference(shapes(state), {**sizes, **dict.fromkeys(extra, "extra state")})
    if mismatch or facts.get("architecture") != architecture(state):
        raise ValueError(
            f"{place} is of another architecture: {mismatch or 'its tensors have other types'}; build the "
            "model that was saved"
        )
    model.load_state_dict({**read_pieces(place, tensors_of(state).get), **extra})
    return facts


def read_undamaged(place: Path) -> dict[str, Any]:
    """The facts about a sharded model; all processes must call this together.

    Args:
        place: The folder `sharded`.

    Raises:
        ValueError: If there is none, or a file is missing or is not as it was written.
    """
    facts = Processes.current().from_first(lambda: _read_facts(place))
    files = facts[FILES]
    actual = _describe_files(place, list(files))
    for name, file in files.items():
        if actual[name] != file:
            raise ValueError(
                f"{place / name} is damaged: expected {file}, found {actual[name] or 'no such file'}: copy "
                "the folder again, or save the model again"
            )
    return facts


def remove_sharded(folder: Path) -> None:
    """Removes a sharded model, and what a crash left of one; it loses its name first, then its files."""
    for each in (_set_aside(folder / SHARDED), folder / DRAFT):
        _remove(each)


def _read_facts(place: Path) -> dict[str, Any]:
    if not (place / SIDECAR).is_file():
        raise ValueError(f"expected a sharded model in {place}, found none: save a result with sharded=True")
    facts = read_object(place / SIDECAR, ": save the model again")
    if PIECES not in (facts.get(FILES) or ()):
        raise ValueError(f"{place / SIDECAR} must have the digests of the files, found none: save it again")
    return facts


def _describe_files(folder: Path, names: Sequence[str]) -> dict[str, dict[str, object]]:
    """The size and the digest of each file; each process reads a share of the files."""
    processes = Processes.current()
    own_names = names[processes.rank :: processes.count]
    shares = processes.from_each(lambda: {name: _describe_file(folder / name) for name in own_names})
    return {name: file for share in shares for name, file in share.items()}


def _describe_file(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)} if path.is_file() else {}


def _start(draft: Path, place: Path) -> None:
    if (draft / SIDECAR).exists() and not place.exists():  # a crash came between the renames of `_finish`
        draft.rename(place)
    _remove(draft)
    draft.mkdir(parents=True)


def _finish(draft: Path, place: Path, facts: Mapping[str, object]) -> None:
    write_atomically(draft / SIDECAR, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    earlier = _set_aside(place)
    draft.rename(place)
    _remove(earlier)


def _set_aside(place: Path) -> Path:
    """Renames a sharded model, if there is one; returns the folder of that name."""
    earlier = place.with_name(f"{DRAFT}.earlier")
    _remove(earlier)
    if place.exists():
        place.rename(earlier)
    return earlier


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)

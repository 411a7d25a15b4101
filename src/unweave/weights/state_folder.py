"""The saved states of a run: named tensors and facts, written as a whole or not at all.

Whole tensors are written by the first process. Sharded ones are written by all processes together, by
`torch.distributed.checkpoint`, and any number of processes can read them.
"""

import json
import pickle
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.record.files import read_object, sync, write_atomically
from unweave.weights.distributed_checkpoint import PIECES, Likeness, read_pieces, write_pieces
from unweave.weights.processes import Processes
from unweave.weights.sharded import cut, is_sharded

FACTS = "facts.json"
WHOLE = "tensors.pt"

CLAIM = "run.json"
"""The file that names the run whose states a folder holds."""

END = "end"


@dataclass
class States:
    """The folder of the states of a run. It holds the newest state of every descent, by number.

    Args:
        folder: The folder.
        every: The number of steps between two states of a descent.

    Raises:
        ValueError: If `every` is less than one.
    """

    folder: Path
    every: int

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"expected one step or more between two saved states, found {self.every}")
        self.descents, self.busy = 0, False
        self._start, self._counted = time.perf_counter(), 0.0

    def claim(self, facts: Mapping[str, object]) -> None:
        """Marks the folder as that of a run; called on the first process.

        Raises:
            ValueError: If it holds the states of another run, or anything else.
        """
        path = self.folder / CLAIM
        refuse_other_content(self.folder)
        if path.exists():
            content = read_object(path)
            keys = [name for name in facts if content.get(name) != facts[name]]
            if keys:
                raise ValueError(
                    f"{self.folder} holds the states of another run, which differs in {keys[0]!r}: choose "
                    "another folder, or delete this one"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(facts))

    def seconds(self) -> float:
        """The wall time of the run, with that of its interrupted parts up to the state they left."""
        return self._counted + time.perf_counter() - self._start

    def count_earlier(self, seconds: float) -> float:
        """Counts the time before an interruption; returns what was not counted yet."""
        elapsed, self._counted = seconds - self._counted, seconds
        return elapsed

    def newest(self, number: int, processes: Processes) -> Path | None:
        """The newest state of a descent, if there is one; deletes older ones and drafts that a crash left."""
        return processes.from_first(lambda: keep_newest(self.folder, number))

    def write(
        self,
        number: int,
        step: int | None,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        processes: Processes,
    ) -> None:
        """Writes a state in place of the older one of its descent. All processes must call this together.

        Args:
            number: The number of the descent.
            step: The number of steps taken; None at the end of the descent.
            tensors: The tensors by name.
            facts: JSON values.
            processes: The processes that share the run.

        Raises:
            OSError: On every process, if one of them can't write.
        """
        folder = self.folder / f"{number:03d}-{END if step is None else f'{step:09d}'}"
        draft = folder.with_name(f".{folder.name}")
        processes.from_first(lambda: start_draft(draft))
        if any(map(is_sharded, tensors.values())):
            write_pieces(draft, tensors)
        processes.from_first(lambda: finish_draft(draft, folder, tensors, facts))
        processes.from_first(lambda: keep_newest(self.folder, number))


def refuse_other_content(folder: Path) -> None:
    """Raises if a folder that no run has claimed holds anything, which a run could take for its states."""
    if not folder.is_dir() or (folder / CLAIM).exists():
        return
    names = [each.name for each in folder.iterdir() if not each.name.startswith(f".{CLAIM}.")]
    if names:
        raise ValueError(
            f"{folder} must be empty, missing, or the folder of this run's states, found {min(names)!r} in "
            "it: choose another folder"
        )


def keep_newest(folder: Path, number: int) -> Path | None:
    """The newest state of a descent, if there is one; deletes older ones and drafts that a crash left."""
    *older, newest = [None, *sorted(folder.glob(f"{number:03d}-*"))]
    for each in (*folder.glob(f".{number:03d}-*"), *filter(None, older)):
        shutil.rmtree(each)
    return newest


def start_draft(draft: Path) -> None:
    """Makes an empty folder for a draft."""
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)


def finish_draft(draft: Path, folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes what the first process writes, and gives the draft its name."""
    write_atomically(draft / FACTS, json.dumps(facts))
    if not (draft / PIECES).exists():
        write_whole(draft / WHOLE, tensors)
        sync(draft / WHOLE)
    draft.rename(folder)


def write_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes whole tensors into a file.

    Raises:
        OSError: If it can't be written.
    """
    with path.open("wb") as file:
        try:
            torch.save(dict(tensors), file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides it behind an error of its own
                raise error.__context__ from None
            raise


def read_facts(folder: Path) -> Mapping[str, Any]:
    """The facts of a state.

    Raises:
        ValueError: If the folder holds no state.
    """
    if not (folder / FACTS).exists():
        raise ValueError(f"{folder} is no saved state: delete it to start again")
    return read_object(folder / FACTS, ": delete the folder to start again")


def read_tensors(folder: Path, like: Likeness, processes: Processes) -> dict[str, Tensor]:
    """The tensors of a state, sharded as the present weights are; all processes must call this together.

    Raises:
        ValueError: On every process, if they can't be read.
    """
    if processes.from_first(lambda: (folder / PIECES).exists()):
        return read_pieces(folder, like)
    tensors = processes.from_first(lambda: read_whole(folder / WHOLE))
    return {name: cut_like(each, like(name)) for name, each in tensors.items()}


def cut_like(whole: Tensor, weight: Tensor | None) -> Tensor:
    """A whole tensor, sharded as a weight if it has the weight's shape."""
    return cut(whole, weight) if weight is not None and weight.shape == whole.shape else whole


def read_whole(path: Path) -> dict[str, Tensor]:
    """Reads whole tensors from a file, onto the CPU.

    Raises:
        ValueError: If it is missing or damaged, or holds anything else.
    """
    spoilt = f"{path.parent} is no saved state: delete it to start again"
    try:
        with zipfile.ZipFile(path) as file:  # torch does not compare the checksums
            damaged_file = file.testzip()
        tensors = None if damaged_file else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(spoilt) from error
    if not isinstance(tensors, dict) or not all(isinstance(each, Tensor) for each in tensors.values()):
        raise ValueError(spoilt)
    return tensors

"""A model that forgot, and how it is saved."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol, runtime_checkable

from torch import nn

from unweave.problem import Problem
from unweave.record import checkpoint, record
from unweave.record.files import follow_umask
from unweave.record.one_model import SHOWN, one_model, request_row
from unweave.record.traces import trace_rows
from unweave.split import PARTS, Split
from unweave.tasks import Task
from unweave.weights.cost import Cost

Method = Callable[[Problem], None]

PRETRAINED = "pretrained"
"""The folder of a model in a form of its own."""


@runtime_checkable
class Pretrained(Protocol):
    """A model that has a format of its own on disk, as those of transformers do."""

    def save_pretrained(self, save_directory: str) -> object:
        """Writes the model into a folder."""
        ...


@dataclass(frozen=True)
class Result:
    """A model that forgot.

    Args:
        model: The edited copy, in evaluation mode.
        method: What edited it.
        split: The data, with what was to be forgotten.
        task: How the model is scored.
        seed: Of all randomness of the method.
        original: The model as it was given; the same object.
        cost: What the method spent.
        curves: The loss of every term at every step.
        traces: What probes saw: rows of step, value and reliability, by name.
    """

    model: nn.Module
    method: Method
    split: Split
    task: Task
    seed: int
    original: nn.Module
    cost: Cost
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    traces: Mapping[str, list[tuple[int, float, float]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tables call the method."""
        return self.method.__name__ if isinstance(self.method, FunctionType) else type(self.method).__name__

    def row(self, cost: float | None = None) -> dict[str, Any]:
        """The method and what it spent, in the words of a record.

        Args:
            cost: Its seconds relative to a retraining's, if that is known.
        """
        spent = {"seconds": self.cost.seconds, "gradient_evaluations": self.cost.gradients, "cost": cost}
        return {"repr": repr(self.method), **spent, "trace": trace_rows(self.traces, self.curves)}

    def request(self) -> dict[str, Any]:
        """What was deleted, in the words of a record."""
        split, forget = self.split, self.split.forget
        places, names = forget[:SHOWN].tolist(), split.train.names
        ids = places if names is None else [names[place] for place in places]
        labels, model = split.train.labels[forget].tolist(), type(self.original).__name__
        return request_row(ids, labels, of=len(split.train), model=model)

    def sizes(self) -> dict[str, Any]:
        """The digest of the split, and the numbers of examples of its parts, in the words of a record."""
        known = {"digest": self.split.digest(), "forgotten_classes": list(self.split.forgotten_classes)}
        return {**known, **{part: len(self.split.part(part)[1]) for part in PARTS}}

    def as_record(self) -> dict[str, Any]:
        """The record of a model that nothing was measured of yet."""
        reason = "INCONCLUSIVE: no verdict: the model was not audited yet"
        none = {"scores": {}, "gap": None, "verdict": "INCONCLUSIVE", "reason": reason}
        row = {**none, "peak_mib": None, "failed": None, **self.row()}
        return one_model({self.name: row}, self.request(), self.sizes(), seeds=[self.seed])

    def save(self, folder: str | Path, *, write: Callable[[nn.Module, Path], object] | None = None) -> None:
        """Writes the model, `split.json` and `record.json`, whose verdict says that nothing was audited yet.

        The model is `model.safetensors` with `model.json`, which also tells the original by the digest of its
        weights; one that has `save_pretrained` is written by that as well.

        Args:
            folder: Made if it is missing.
            write: Writes the model in a form of its own into a folder, instead of `save_pretrained`.

        Raises:
            ValueError: If the folder holds a model or a record that unweave did not write. What an earlier
                save wrote is replaced.
        """
        place = Path(folder)
        refuse_foreign(place)
        made = {"split": self.split.digest(), "recipe": repr(self.method), "seed": self.seed}
        origin = {"original": checkpoint.contents(self.original.state_dict())}
        code = record.environment()["code"]
        checkpoint.save(place, self.model.state_dict(), {**made, **origin, "code": code})
        self.split.save(place / "split.json")
        with replace_folder(place / PRETRAINED) as beside:
            if write is not None:
                write(self.model, beside)
            elif isinstance(self.model, Pretrained):
                self.model.save_pretrained(str(beside))
        record.write(self.as_record(), place)


def refuse_foreign(folder: Path) -> None:
    """Raises if a folder holds a model or a record that somebody else wrote: saving would replace it."""
    sidecar, schema = (
        read_if_present(folder / checkpoint.SIDECAR),
        read_if_present(folder / record.FILE).get("schema"),
    )
    ours = {
        checkpoint.WEIGHTS: {"architecture", "weights"} <= sidecar.keys(),
        PRETRAINED: {"architecture", "weights"} <= sidecar.keys(),
        record.FILE: str(schema).startswith("unweave.record/"),
    }
    for name, own in ours.items():
        if (folder / name).exists() and not own:
            raise ValueError(f"{folder} holds a {name} that unweave did not write: choose another folder")


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A place to write what is to become a folder; what is there is replaced by a whole one, or stays."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as workplace:
        beside, before = Path(workplace) / folder.name, Path(workplace) / "before"
        yield beside
        if beside.exists():
            for path in beside.rglob("*"):
                if path.is_file():
                    follow_umask(path)
            if folder.exists():
                os.replace(folder, before)
            os.replace(beside, folder)


def read_if_present(path: Path) -> Mapping[str, object]:
    """The JSON object in a file; an empty one if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

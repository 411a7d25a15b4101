"""The result of unlearning, and how to save it."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from unweave.methods.lora import name_of
from unweave.problem import Problem
from unweave.record import checkpoint, record
from unweave.record.files import follow_umask
from unweave.record.one_model import MOST_IDS, one_model, request_row, trace_rows
from unweave.split import PARTS, Split
from unweave.tasks import OfFamily, Task
from unweave.tasks.low_rank import Additions
from unweave.weights.cost import Cost
from unweave.weights.processes import Processes
from unweave.weights.sharded_files import DRAFT, SHARDED, remove_sharded, save_sharded
from unweave.weights.sharded_model import (
    class_name,
    digest_weights,
    is_model_sharded,
    whole_copy,
    whole_state,
)

__all__ = ["Result"]

Method = Callable[[Problem], None]

PRETRAINED = "pretrained"
"""The folder of a model in its own format."""

ADDITIONS = "lora"
"""The folder of low-rank additions in the format of peft or diffusers."""


@runtime_checkable
class Pretrained(Protocol):
    """A model with its own format on disk, such as a model of transformers."""

    def save_pretrained(self, save_directory: str) -> object:
        """Writes the model into a folder."""
        ...


@dataclass(frozen=True)
class Result:
    """An unlearned model, with all that made it.

    Args:
        model: The edited copy, in evaluation mode; the caller's own object if that is sharded.
        method: The method that edited it.
        split: The data, with the forget set.
        task: Scores the model.
        seed: The seed of the method.
        original: The model before unlearning: the caller's own object, or a `ShardedOriginal`.
        cost: The cost of the method.
        curves: The loss of every term at every step.
        traces: The measurements of probes, by name: rows of step, value and reliability.
        additions: The low-rank additions that the model consists of, beside the original's weights; None
            unless the method is `LoRA`.
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
    additions: Additions | None = None

    @property
    def name(self) -> str:
        """The name of the method in tables; of a pipeline, the names of its stages."""
        return name_of(self.method)

    def row(self, cost: float | None = None) -> dict[str, Any]:
        """The row of the method in a record: its settings, cost and curves.

        Args:
            cost: Its seconds relative to a retraining; None if that is unknown.
        """
        cost_facts = {"seconds": self.cost.seconds, "gradient_evaluations": self.cost.gradients, "cost": cost}
        return {"repr": repr(self.method), **cost_facts, "trace": trace_rows(self.traces, self.curves)}

    def request(self) -> dict[str, Any]:
        """The forget set, as a record describes it."""
        split, forget = self.split, self.split.forget
        places, names = forget[:MOST_IDS].tolist(), split.train.names
        ids = places if names is None else [names[place] for place in places]
        labels, model = split.train.labels[forget].tolist(), class_name(self.original)
        return request_row(ids, labels, of=len(split.train), model=model)

    def sizes(self) -> dict[str, Any]:
        """The digest of the split and the sizes of its parts, as a record holds them."""
        facts = {"digest": self.split.digest(), "forgotten_classes": list(self.split.forgotten_classes)}
        return {**facts, **{part: len(self.split.part(part)[1]) for part in PARTS}}

    @property
    def family(self) -> str | None:
        """The family of the model, if its task names one."""
        return self.task.family if isinstance(self.task, OfFamily) else None

    def as_record(self) -> dict[str, Any]:
        """The record of the model before any audit."""
        reason = "INCONCLUSIVE: no verdict: the model was not audited yet"
        placeholder = {"scores": {}, "gap": None, "verdict": "INCONCLUSIVE", "reason": reason}
        row = {**placeholder, "peak_mib": None, "failed": None, **self.row()}
        return one_model(
            {self.name: row}, self.request(), self.sizes(), family=self.family, seeds=[self.seed]
        )

    def save(
        self,
        folder: str | Path,
        *,
        write: Callable[[nn.Module, Path], object] | None = None,
        sharded: bool = False,
    ) -> None:
        """Writes the model, `split.json` and `record.json`, whose verdict is INCONCLUSIVE until an audit.

        The model is written as `model.safetensors` with `model.json`, which identifies the original by the
        digest of its weights. A model with `save_pretrained` is also written by that. Low-rank additions are
        written to the folder `lora`, which peft loads onto the original. Of several processes that share a
        model, the first writes, and all must call this.

        Args:
            folder: Created if it is missing.
            write: Writes the model in its own format into a folder, instead of `save_pretrained`.
            sharded: Each process writes its rows of a sharded model into the folder `sharded`, a checkpoint
                of `torch.distributed.checkpoint`; none gathers the model, and no other format is written.
                `unweave.weights.sharded_files.load_sharded` reads it.

        Raises:
            ValueError: If the folder holds a model or a record that unweave did not write, or `sharded` is
                given for a whole model. Files of an earlier save are replaced.
        """
        place, on_first = Path(folder), Processes.current().from_first
        facts = {"split": self.split.digest(), "recipe": repr(self.method), "seed": self.seed}
        facts |= {"original": digest_weights(self.original), "code": record.environment()["code"]}
        if sharded:
            if not is_model_sharded(self.model):
                raise ValueError("sharded=True is for a sharded model, found a whole one: leave it out")
            on_first(lambda: refuse_foreign(place))
            save_sharded(place, self.model, facts)
            on_first(lambda: remove_whole(place))
        else:
            state = whole_state(self.model)
            on_first(lambda: self._write_whole(place, state, facts, write))
        on_first(lambda: self._write_rest(place))

    def _write_whole(
        self,
        place: Path,
        state: Mapping[str, Tensor],
        facts: Mapping[str, object],
        write: Callable[[nn.Module, Path], object] | None,
    ) -> None:
        """Writes the model's files, on the first process."""
        refuse_foreign(place)
        checkpoint.save(place, state, facts)
        remove_sharded(place)  # of an earlier save
        with replace_folder(place / PRETRAINED) as draft_folder:
            model = whole_copy(self.model, state) if is_model_sharded(self.model) else self.model
            if write is not None:
                write(model, draft_folder)
            elif isinstance(model, Pretrained):
                model.save_pretrained(str(draft_folder))

    def _write_rest(self, place: Path) -> None:
        """Writes what is beside the model, on the first process."""
        self.split.save(place / "split.json")
        if self.additions is not None:
            with replace_folder(place / ADDITIONS) as draft_folder:
                self.additions.save(draft_folder)
        record.write(self.as_record(), place)


def remove_whole(folder: Path) -> None:
    """Removes the whole model of an earlier save; last the file that says whose it is."""
    if (folder / PRETRAINED).exists():
        shutil.rmtree(folder / PRETRAINED)
    for name in (checkpoint.WEIGHTS, checkpoint.SIDECAR):
        (folder / name).unlink(missing_ok=True)


def refuse_foreign(folder: Path) -> None:
    """Raises if a folder holds a model or a record that unweave did not write: saving would replace it."""
    schema = read_if_present(folder / record.FILE).get("schema")
    is_whole = {"architecture", "weights"} <= read_if_present(folder / checkpoint.SIDECAR).keys()
    places = (SHARDED, DRAFT)  # after a crash a finished draft may not have its name yet
    is_sharded = any("architecture" in read_if_present(folder / name / checkpoint.SIDECAR) for name in places)
    ownership = {
        checkpoint.WEIGHTS: is_whole,
        PRETRAINED: is_whole,
        SHARDED: is_sharded,
        ADDITIONS: is_whole or is_sharded,
        record.FILE: str(schema).startswith("unweave.record/"),
    }
    for name, is_ours in ownership.items():
        if (folder / name).exists() and not is_ours:
            raise ValueError(f"{folder} holds a {name} that unweave did not write: choose another folder")


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder, which replaces `folder` as a whole if the body succeeds."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as workplace:
        draft_folder, old_folder = Path(workplace) / folder.name, Path(workplace) / "before"
        yield draft_folder
        if draft_folder.exists():
            for path in draft_folder.rglob("*"):
                if path.is_file():
                    follow_umask(path)
            if folder.exists():
                os.replace(folder, old_folder)
            os.replace(draft_folder, folder)


def read_if_present(path: Path) -> Mapping[str, object]:
    """The JSON object in a file; an empty one if the file is missing or holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

"""Make a copy of a model forget, with checks before and after."""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from unweave.data import Source
from unweave.data.loaded import Loaded
from unweave.files import follow_umask
from unweave.importance import evaluating
from unweave.methods.about import refuse_family
from unweave.problem import Cost, Failed, Problem
from unweave.split import Split
from unweave.tasks import Task, call
from unweave.tasks.classifier import Classifier
from unweave.train import spend

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
        from unweave import checkpoint
        from unweave.run import record
        from unweave.run.single import unaudited

        place = Path(folder)
        refuse_foreign(place)
        made = {"split": self.split.digest(), "recipe": repr(self.method), "seed": self.seed}
        origin = {"original": checkpoint.contents(self.original.state_dict())}
        code = record.environment()["code"]
        checkpoint.save(place, self.model.state_dict(), {**made, **origin, "code": code})
        self.split.save(place / "split.json")
        with replacing(place / PRETRAINED) as beside:
            if write is not None:
                write(self.model, beside)
            elif isinstance(self.model, Pretrained):
                self.model.save_pretrained(str(beside))
        record.write(unaudited(self), place)


def unlearn(
    model: nn.Module,
    split: Split,
    method: Method,
    *,
    task: Task | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    build: Callable[[], nn.Module] | None = None,
) -> Result:
    """Makes a copy of a model forget; the model itself stays as it is.

    Args:
        model: Trained on the forget and the retain data of `split`.
        split: The data, with what is to be forgotten.
        method: Such as `unweave.LUR()`, or any function that edits a `Problem`.
        task: How the model is scored; classification into the classes of the split if None.
        seed: Of all randomness.
        device: Where to work; where the model is if None.
        build: Makes a model of the same architecture with fresh weights, for methods that start over. By
            default a copy whose modules redraw their own.

    Raises:
        ValueError: If the model has no trainable weights, or holds NaN, or the method can't be right on it
            or is for models of another family, or has put another model in the place of this one.
        Failed: If the run ends without a usable model: NaN, one answer to everything, or the same model.
    """
    refuse_unusable(model)
    task = task or Classifier(split.n_classes)
    refuse_family(method, task)
    working = copy.deepcopy(model)
    place = torch.device(device) if device is not None else next(working.parameters()).device
    held_out, calibration = split.held_out.to(place), split.calibration.tolist()
    moved = Split(split.train.to(place), split.forget, held_out, calibration=calibration)
    generator = torch.Generator().manual_seed(seed)
    problem = Problem(task, working.to(place), moved, generator, build, given=model)
    if isinstance(task, Classifier):
        refuse_no_classifier(problem.model, moved)
    cost = spend(problem, method)
    refuse_other_shapes(model, problem.model)
    refuse_unchanged(model, problem.model)
    if isinstance(task, Classifier):
        refuse_collapsed(problem.model, moved)
    edited = problem.model.eval()
    return Result(edited, method, split, task, seed, model, cost, problem.curves, problem.traces)


def refuse_unusable(model: nn.Module) -> None:
    """Raises if nothing may move, or a weight is not a number."""
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no trainable weights: set requires_grad on those that may move")
    for name, value in state(model):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"weights must be finite, found NaN or infinity in {name!r}: train the model again"
            )


def refuse_no_classifier(model: nn.Module, split: Split) -> None:
    """Raises if a classifier has no logit for one of the labels."""
    from unweave.audit.collect import refuse_unfit

    for name, source in (("train", split.train), ("test", split.held_out)):
        refuse_unfit(model, source, name)


def refuse_other_shapes(before: nn.Module, after: nn.Module) -> None:
    """Raises if a method has changed the names or shapes of the weights."""
    from unweave.checkpoint import difference, shapes

    found = difference(shapes(before.state_dict()), shapes(after.state_dict()))
    if found:
        raise ValueError(f"the method must keep the shapes of the weights: {found}")


def refuse_unchanged(before: nn.Module, after: nn.Module) -> None:
    """Raises if every weight and buffer is the same, or one is no number any more."""
    pairs = [(name, old, new) for (name, old), (_, new) in zip(state(before), state(after), strict=True)]
    for name, _, new in pairs:
        if new.is_floating_point() and not bool(torch.isfinite(new).all()):
            raise Failed(f"{name!r} is no longer finite: the learning rate or the forget loss is too strong")
    if all(old.shape == new.shape and torch.equal(old.cpu(), new.cpu()) for _, old, new in pairs):
        raise Failed("nothing changed: the method left every weight as it was")


@torch.no_grad()
def refuse_collapsed(model: nn.Module, split: Split) -> None:
    """Raises if the model gives one answer to all retain data, though that has several labels."""
    source, ids = split.part("retain")
    if len(source.labels[ids].unique()) == 1:
        return
    with evaluating(model):
        batches = source.stream(ids.split(1024))
        answers = torch.cat([call(model, raw.inputs).argmax(-1).unique() for raw in batches]).unique()
    if len(answers) == 1:
        told = f"it answers class {int(answers)} to all retain data"
        raise Failed(f"the model collapsed: {told}; use a weaker forget loss or a lower learning rate")


def refuse_foreign(folder: Path) -> None:
    """Raises if a folder holds a model or a record that somebody else wrote: saving would replace it."""
    from unweave import checkpoint
    from unweave.run import record

    sidecar, schema = noted(folder / checkpoint.SIDECAR), noted(folder / record.FILE).get("schema")
    ours = {
        checkpoint.WEIGHTS: {"architecture", "weights"} <= sidecar.keys(),
        PRETRAINED: {"architecture", "weights"} <= sidecar.keys(),
        record.FILE: str(schema).startswith("unweave.record/"),
    }
    for name, own in ours.items():
        if (folder / name).exists() and not own:
            raise ValueError(f"{folder} holds a {name} that unweave did not write: choose another folder")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
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


def noted(path: Path) -> Mapping[str, object]:
    """The JSON object in a file; an empty one if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def state(model: nn.Module) -> list[tuple[str, Tensor]]:
    """All weights and buffers by name, in order."""
    return [*model.named_parameters(), *model.named_buffers()]


def dataset_of(source: Source, ids: Tensor) -> Dataset:
    """Some examples of a source as a data set: a user's own items, or tuples `(input..., label)`."""
    return Subset(source.dataset, ids.tolist()) if isinstance(source, Loaded) else Examples(source, ids)


class Examples(Dataset):
    """Some examples of a source as a data set of `(input..., label)` tuples.

    Args:
        source: Where they come from; items are the same at every read.
        ids: Their positions there.
    """

    def __init__(self, source: Source, ids: Tensor) -> None:
        self.source, self.ids = source, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor | int, ...]:
        (raw,) = self.source.stream([self.ids[index : index + 1]])
        fields = raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs
        return (*(field[0] for field in fields), int(raw.target))

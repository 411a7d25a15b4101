"""What every method is given: a model, its data cut four ways, and what to forget."""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.data import Dataset

from unweave.data import Source
from unweave.data.loaded import Loaded
from unweave.data.plain import Unaugmented
from unweave.files import write_atomically
from unweave.processes import Processes
from unweave.tasks import Task

Part = Literal["forget", "retain", "mixed", "calibration", "test"]
"""`mixed` is forget and retain together, as the original model saw them."""


T = TypeVar("T")


class Failed(RuntimeError):
    """A run that ended without a usable model: NaN, collapse, or nothing changed."""


class Split:
    """A user's data cut four ways by position: forget, retain, calibration and test.

    Forget and retain cut the data that the model was trained on. Calibration is held out: methods may use it
    for tuning, and membership attacks take their non-members from it. Test is reported once.

    Args:
        train: The training data: any map-style `Dataset` of tuples or dicts, or a `Source`.
        forget: What to forget: positions in `train`, or names if the examples have ids.
        test: Data that the model never saw.
        calibration: The fraction of `test` that is set aside for it, or the positions there.
        seed: Chooses which part of `test` that is.

    Raises:
        ValueError: If an id or a position is unknown, out of range or named twice, if nothing or everything
            is to be forgotten, if a label is negative, or if fewer than two examples are held out, or none
            is for calibration.
    """

    def __init__(
        self,
        train: Dataset | Source,
        forget: Sequence[int] | Sequence[str] | Int[Tensor, " n"],
        test: Dataset | Source,
        *,
        calibration: float | Sequence[int] = 0.5,
        seed: int = 0,
    ) -> None:
        self.train, self.held_out = as_source(train), as_source(test)
        for name, source in (("training", self.train), ("test", self.held_out)):
            if len(source.labels) and int(source.labels.min()) < 0:
                raise ValueError(f"labels of the {name} data must be >= 0, found {int(source.labels.min())}")
        self.forget = positions(self.train, forget)
        self.calibration, self.test = cut(len(self.held_out), calibration, seed)

    @cached_property
    def is_forget(self) -> Bool[Tensor, " n"]:
        """Which training examples are to be forgotten."""
        return torch.zeros(len(self.train), dtype=torch.bool).index_fill_(0, self.forget, True)

    @cached_property
    def retain(self) -> Int[Tensor, " retain"]:
        """Positions of the training examples that stay."""
        return (~self.is_forget).nonzero()[:, 0]

    @cached_property
    def n_classes(self) -> int:
        """One more than the largest label."""
        return 1 + int(max(self.train.labels.max(), self.held_out.labels.max()))

    @cached_property
    def forgotten_classes(self) -> tuple[int, ...]:
        """Classes of which no training example stays."""
        gone = set(self.train.labels[self.forget].tolist()) - set(self.train.labels[self.retain].tolist())
        return tuple(sorted(gone))

    def part(self, name: Part) -> tuple[Source, Int[Tensor, " n"]]:
        """The source of a part, and its positions there."""
        if name == "mixed":
            return self.train, torch.arange(len(self.train))
        source = self.train if name in ("forget", "retain") else self.held_out
        return source, {"forget": self.forget, "calibration": self.calibration, "test": self.test}.get(
            name, self.retain
        )

    def digest(self, *parts: Part) -> str:
        """A digest of the data and positions of these parts, whatever their order; of all four by default.

        `digest("mixed")` names the data that an original model must have been trained on, `digest("retain")`
        those of a retrained one.
        """
        whole = hashlib.sha256()
        for name in sorted(parts or ("forget", "retain", "calibration", "test")):
            source, ids = self.part(name)
            whole.update(f"{source.digest()}:{len(ids)}:".encode())
            whole.update(ids.sort().values.numpy().astype("<i8").tobytes())
        return whole.hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the positions of the four parts and the digest as JSON."""
        parts: tuple[Part, ...] = ("forget", "retain", "calibration", "test")
        content = {"digest": self.digest(), **{name: self.part(name)[1].tolist() for name in parts}}
        write_atomically(Path(path), json.dumps(content))

    @classmethod
    def load(cls, path: str | Path, train: Dataset | Source, test: Dataset | Source) -> "Split":
        """The split that `save` wrote, over the same data.

        Raises:
            ValueError: If the file is another one, or the data is not what the split was made from.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            digest = str(content["digest"])
            forget, calibration = ([int(i) for i in content[part]] for part in ("forget", "calibration"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"expected a split in {path}, found another file ({error!r})") from error
        split = cls(train, forget, test, calibration=calibration)
        if split.digest() != digest:
            raise ValueError(
                f"the split in {path} was made from other data: its digest is {digest[:12]}, "
                f"this data gives {split.digest()[:12]}"
            )
        return split


def as_source(data: Dataset | Source) -> Source:
    """The data itself, or a DataLoader's view of a user's data set."""
    return data if isinstance(data, Source) else Loaded(data)


def positions(source: Source, ids: Sequence[int] | Sequence[str] | Tensor) -> Int[Tensor, " n"]:
    """Sorted positions of the named examples, checked."""
    found = source_positions(source, ids.tolist() if isinstance(ids, Tensor) else ids)
    if len(set(found)) < len(found):
        seen: set[int] = set()
        twice = next(i for i in found if i in seen or seen.add(i))
        raise ValueError(f"each example can be forgotten once, found {twice} twice")
    if not found or len(found) == len(source):
        raise ValueError(
            f"forget must name some but not all of the {len(source)} training examples, found {len(found)}"
        )
    return torch.tensor(sorted(found), dtype=torch.long)


def source_positions(source: Source, examples: Sequence[int | str | np.integer]) -> list[int]:
    """The position of each example, given that or its name."""
    # names are asked for once, and only where they are needed: that may read the whole data set
    names = source.names if any(isinstance(example, str) for example in examples) else None
    places = None if names is None else {name: place for place, name in enumerate(names)}
    return [_position(len(source), places, example) for example in examples]


def _position(n: int, places: Mapping[str, int] | None, example: int | str | np.integer) -> int:
    if isinstance(example, str):
        if places is None:
            raise ValueError(f"expected positions, found the id {example!r}: the training data has no ids")
        if example not in places:
            raise ValueError(f"the id {example!r} is not in the training data")
        return places[example]
    if not 0 <= int(example) < n:
        raise ValueError(f"positions must be in 0..{n - 1}, found {example}")
    return int(example)


def cut(n: int, calibration: float | Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the calibration and the test part among `n` held-out examples."""
    if n < 2:
        raise ValueError(
            "the test data must hold at least two examples, one for calibration and one for test, "
            f"found {n}: give more"
        )
    if isinstance(calibration, int | float):
        if not 0 < calibration < 1:
            raise ValueError(f"calibration must be a fraction in (0, 1) or positions, found {calibration}")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        first = max(1, min(n - 1, round(calibration * n)))
        return order[:first].sort().values, order[first:].sort().values
    if not len(calibration) or len(set(calibration)) < len(calibration):
        raise ValueError(
            "calibration must be a fraction or positions, at least one and each once, found "
            f"{len(calibration)} positions, {len(set(calibration))} of them different"
        )
    if not 0 <= min(calibration) <= max(calibration) < n:
        found = f"{min(calibration)}..{max(calibration)}"
        raise ValueError(f"calibration must be positions in 0..{n - 1} of the test data, found {found}")
    chosen = torch.tensor(sorted(calibration), dtype=torch.long)
    rest = torch.ones(n, dtype=torch.bool).index_fill_(0, chosen, False).nonzero()[:, 0]
    return chosen, rest


@dataclass
class Cost:
    """What a method spent.

    Args:
        gradients: Gradient evaluations: one forward and one backward over one batch.
        examples: Examples in those batches.
        seconds: Wall time.
    """

    gradients: int = 0
    examples: int = 0
    seconds: float = 0.0

    def __iadd__(self, other: "Cost") -> "Cost":
        self.gradients += other.gradients
        self.examples += other.examples
        self.seconds += other.seconds
        return self


@runtime_checkable
class Resettable(Protocol):
    """A module that can redraw its own weights, as torch's layers do."""

    def reset_parameters(self) -> None:
        """Redraws the weights in place."""
        ...


@dataclass
class Problem:
    """One unlearning request, ready to run.

    Args:
        task: How this family of models is run and scored.
        model: The model to edit, in place.
        split: The data, cut four ways.
        generator: The only source of randomness, on the CPU.
        build: Makes a model of the same architecture with fresh weights. By default a copy whose modules
            redraw their own.
        processes: Who shares the work.
        cost: What was spent so far.
        memory: Results that several methods share, such as a proxy model; whoever takes one also takes its
            cost. To be shared over one original and one split; a seed never takes the result of another.
        curves: The loss of every term at every step, in the unit of the task.
        traces: What probes saw: rows of step, value and reliability, by name.
    """

    task: Task
    model: nn.Module
    split: Split
    generator: torch.Generator
    build: Callable[[], nn.Module] | None = None
    processes: Processes = field(default_factory=Processes.current)
    cost: Cost = field(default_factory=Cost)
    memory: dict[str, tuple[object, Cost]] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    traces: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, nn.Parameter]:
        """The trainable weights by name; tied weights once."""
        params = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not params:
            raise ValueError("the model has no trainable weights: set requires_grad on those that may move")
        return params

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.params.values())).device

    @property
    def blocks(self) -> list[tuple[str, nn.Module]]:
        """The weight-bearing modules in order of registration: matrices or kernels, no normalisation."""
        modules = [
            (name, m)
            for name, m in self.model.named_modules()
            if not isinstance(m, nn.LayerNorm | nn.RMSNorm)
        ]
        return [(name, m) for name, m in modules if any(p.ndim > 1 for p in m.parameters(recurse=False))]

    @property
    def head(self) -> tuple[str, nn.Module]:
        """The last weight-bearing module."""
        return self.blocks[-1]

    def seed(self) -> int:
        """A fresh seed."""
        return int(torch.randint(2**62, (), generator=self.generator))

    def fresh(self) -> nn.Module:
        """A model of the same architecture on the same device, with newly drawn weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed())
            model = self.build() if self.build else redrawn(self.model)
        return model.to(self.device).train(self.model.training)

    def beside(self, name: str) -> "Problem":
        """The same request over a copy of the model; costs and curves are counted apart.

        Its randomness depends on the seed of this problem and the name, not on what was drawn before.
        """
        key = hashlib.sha256(f"{self.generator.initial_seed()}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
        return Problem(
            self.task, copy.deepcopy(self.model), self.split, generator, self.build, self.processes
        )

    def over(self, split: Split) -> "Problem":
        """The same model and randomness over other data; costs, curves and traces are counted together."""
        return replace(self, split=split)

    def unaugmented(self) -> "Problem":
        """The same request, with training data that is never augmented."""
        split = self.split
        calibration = split.calibration.tolist()
        plain = Split(Unaugmented(split.train), split.forget, split.held_out, calibration=calibration)
        return self.over(plain)

    def remember(self, name: str, make: Callable[["Problem"], T]) -> T:
        """What `make` returns of a copy of the problem, made once for all methods that share `memory`.

        Its cost is charged every time, seconds included: who starts from another's result has not saved it. A
        clock around the whole method has seen the making too; `train.spend` takes that off.
        """
        key = f"{self.generator.initial_seed()}:{name}"
        if key not in self.memory:
            copied = self.beside(name)
            with timed(copied.cost):
                value = make(copied)
            self.memory[key] = value, copied.cost
        value, cost = self.memory[key]
        self.cost += cost
        return cast(T, value)


def redrawn(model: nn.Module) -> nn.Module:
    """A copy of the model whose modules have redrawn their own weights.

    Raises:
        ValueError: If a module holds weights but has no `reset_parameters`.
    """
    fresh = copy.deepcopy(model)
    for name, module in fresh.named_modules():
        if isinstance(module, Resettable):
            module.reset_parameters()
        elif list(module.parameters(recurse=False)):
            raise ValueError(
                f"module {name or type(module).__name__!r} has weights but no reset_parameters(): pass build="
            )
    return fresh


@contextmanager
def timed(cost: Cost) -> Iterator[None]:
    """Adds the wall time of the body to `cost.seconds`."""
    start = time.perf_counter()
    yield
    cost.seconds += time.perf_counter() - start

"""What every method is given: a model, its data cut four ways, and what to forget."""

import copy
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import nn

from unweave.data.unaugmented import Unaugmented
from unweave.split import Split
from unweave.tasks import Task
from unweave.weights.cost import Cost
from unweave.weights.processes import Processes

T = TypeVar("T")

Watch = Callable[["Problem", int], None]
"""Sees a problem before a step of a descent, and the number of that step."""


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
        given: The model as it was given, where the caller still holds it; it is never changed. If None, a
            copy is kept from the moment when `original` is first read, which must be before the first edit.
        watch: Called before every step of every descent with the problem and the number of the step.
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
    given: nn.Module | None = None
    watch: Watch | None = None

    @cached_property
    def original(self) -> nn.Module:
        """The model as it was before the first edit: frozen, in evaluation mode, where the weights are.

        It shares the memory of `given`, if that is on the same device.
        """
        if self.given is None:
            self.given = copy.deepcopy(self.model)
        return frozen_copy(self.given, share=True).to(self.device)

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

    def fresh_model(self) -> nn.Module:
        """A model of the same architecture on the same device, with newly drawn weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed())
            model = self.build() if self.build else redrawn_copy(self.model)
        return model.to(self.device).train(self.model.training)

    def problem_copy(self, name: str) -> "Problem":
        """The same request over a copy of the original; costs and curves are counted apart.

        Its randomness depends on the seed of this problem and the name, not on what was drawn before.
        """
        key = hashlib.sha256(f"{self.generator.initial_seed()}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
        model = copy.deepcopy(self.model if self.given is None else self.given).to(self.device)
        return Problem(self.task, model, self.split, generator, self.build, self.processes)

    def with_split(self, split: Split) -> "Problem":
        """The same model and randomness over other data; costs, curves and traces are counted together."""
        return replace(self, split=split)

    def without_augmentation(self) -> "Problem":
        """The same request, with training data that is never augmented."""
        split = self.split
        calibration = split.calibration.tolist()
        plain = Split(Unaugmented(split.train), split.forget, split.held_out, calibration=calibration)
        return self.with_split(plain)

    def remember(self, name: str, make: Callable[["Problem"], T]) -> T:
        """What `make` returns of a copy of the problem, made once for all methods that share `memory`.

        Its cost is charged every time, seconds included: who starts from another's result has not saved it. A
        clock around the whole method has seen the making too; `train.run_and_time` takes that off.
        """
        key = f"{self.generator.initial_seed()}:{name}"
        if key not in self.memory:
            copied = self.problem_copy(name)
            with add_time(copied.cost):
                value = make(copied)
            self.memory[key] = value, copied.cost
        value, cost = self.memory[key]
        self.cost += cost
        return cast(T, value)


def frozen_copy(model: nn.Module, *, share: bool = False) -> nn.Module:
    """A detached copy in evaluation mode: the original model, a teacher, a proxy.

    Args:
        model: Stays as it is.
        share: Whether the copy holds the same weights and buffers in the same memory.
    """
    memo: dict[int, object] = {}
    if share:
        memo |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
        memo |= {id(b): b.detach() for b in model.buffers()}
    return copy.deepcopy(model, memo).eval().requires_grad_(False)


def redrawn_copy(model: nn.Module) -> nn.Module:
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
def add_time(cost: Cost) -> Iterator[None]:
    """Adds the wall time of the body to `cost.seconds`."""
    start = time.perf_counter()
    yield
    cost.seconds += time.perf_counter() - start

"""The input of every method: a model, its data in four parts, and the forget set."""

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

from unweave.data.unaugmented import UnaugmentedSource
from unweave.errors import UnfitProcesses
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.copies import share_all
from unweave.tasks.low_rank import Additions
from unweave.weights.cost import Cost
from unweave.weights.processes import Processes
from unweave.weights.sharded_model import (
    ShardedOriginal,
    is_model_sharded,
    prepare_sharded,
    refuse_copy,
    refuse_wrapped,
)
from unweave.weights.state_folder import States

__all__ = ["Problem", "frozen_copy"]

T = TypeVar("T")

Watch = Callable[["Problem", int], None]
"""Called with a problem and the number of a step, before that step."""


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
        task: Runs and scores this family of models.
        model: The model to edit, in place.
        split: The data in four parts.
        generator: The only source of randomness, on the CPU.
        build: Makes a model of the same architecture with fresh weights. By default a copy whose modules
            redraw their weights.
        processes: The processes that share the work.
        cost: The cost so far.
        memory: Results that several methods share, such as a proxy model; a method that uses one is charged
            its full cost. Share it over one original and one split only; a seed never uses the result of
            another seed.
        curves: The loss of every term at every step, in the unit of the task.
        traces: The measurements of probes, by name: rows of step, value and reliability.
        caller_model: The caller's model, which is never changed. If None, the first read of `original` makes
            a copy, so it must come before the first edit.
        watch: Called before every step of every descent with the problem and the number of the step.
        states: Where descents save their states, so that an interrupted run can resume; nowhere if None.
        additions: The trained low-rank additions, if a method has merged some.
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
    caller_model: nn.Module | None = None
    watch: Watch | None = None
    states: States | None = None
    additions: Additions | None = None

    def __post_init__(self) -> None:
        refuse_wrapped(self.model)
        if is_model_sharded(self.model):
            prepare_sharded(self.model)
            self.processes = replace(self.processes, sharded=True)

    @cached_property
    def original(self) -> nn.Module:
        """The model before the first edit: frozen, in evaluation mode, on the device of the weights.

        It shares the memory of `caller_model`, if both are on the same device. The original of a sharded
        model is a `ShardedOriginal`.
        """
        if self.caller_model is None and self.processes.sharded:
            self.caller_model = ShardedOriginal(self.model)
        if isinstance(self.caller_model, ShardedOriginal):
            return self.caller_model
        if self.caller_model is None:
            self.caller_model = copy.deepcopy(self.model)
        return frozen_copy(self.caller_model, share=True).to(self.device)

    @property
    def params(self) -> dict[str, nn.Parameter]:
        """The trainable weights by name; tied weights once."""
        params = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not params:
            raise ValueError("the model has no trainable weights: set requires_grad on those to train")
        return params

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(iter(self.params.values())).device

    @property
    def blocks(self) -> list[tuple[str, nn.Module]]:
        """The modules with matrices or kernels, in order of registration; no normalisation layers."""
        modules = [
            (name, m)
            for name, m in self.model.named_modules()
            if not isinstance(m, nn.LayerNorm | nn.RMSNorm)
        ]
        return [(name, m) for name, m in modules if any(p.ndim > 1 for p in m.parameters(recurse=False))]

    @property
    def head(self) -> tuple[str, nn.Module]:
        """The last module of `blocks`."""
        return self.blocks[-1]

    def seed(self) -> int:
        """Draws a seed from the generator."""
        return int(torch.randint(2**62, (), generator=self.generator))

    def fresh_model(self) -> nn.Module:
        """Makes a model of the same architecture on the same device, with newly drawn weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed())
            model = self.build() if self.build else redrawn_copy(self.model)
        return model.to(self.device).train(self.model.training)

    def problem_copy(self, name: str) -> "Problem":
        """The same request on a copy of the original, with its own cost and curves.

        Its randomness depends on the seed of this problem and on the name, not on earlier draws.
        """
        key = hashlib.sha256(f"{self.generator.initial_seed()}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
        refuse_copy(self.model, "this method or target")
        model = copy.deepcopy(self.model if self.caller_model is None else self.caller_model).to(self.device)
        return Problem(
            self.task, model, self.split, generator, self.build, self.processes, states=self.states
        )

    def with_split(self, split: Split) -> "Problem":
        """The same model and generator on another split; cost, curves and traces are shared."""
        return replace(self, split=split)

    def without_augmentation(self) -> "Problem":
        """The same request, without augmentation of the training data."""
        split = self.split
        calibration = split.calibration.tolist()
        unaugmented = Split(
            UnaugmentedSource(split.train), split.forget, split.held_out, calibration=calibration
        )
        return self.with_split(unaugmented)

    def remember(self, name: str, make: Callable[["Problem"], T]) -> T:
        """The result of `make` on a copy of the problem, computed once for all methods that share `memory`.

        The full cost is charged every time, seconds included. A clock around the whole method also saw the
        making of the result; `timing.run_and_time` subtracts it.
        """
        key = f"{self.generator.initial_seed()}:{name}"
        if key not in self.memory:
            problem = self.problem_copy(name)
            with add_time(problem.cost):
                value = make(problem)
            self.memory[key] = value, problem.cost
        value, cost = self.memory[key]
        self.cost += cost
        return cast(T, value)


def frozen_copy(model: nn.Module, *, share: bool = False) -> nn.Module:
    """A frozen copy in evaluation mode: the original model, a teacher, a proxy.

    Args:
        model: Stays unchanged.
        share: Share the memory of weights and buffers with the model.

    Raises:
        ValueError: If the model is sharded.
    """
    refuse_copy(model, "this method or target")
    return (share_all(model) if share else copy.deepcopy(model)).eval().requires_grad_(False)


def redrawn_copy(model: nn.Module) -> nn.Module:
    """A copy of the model whose modules have redrawn their weights.

    Raises:
        ValueError: If a module holds weights but has no `reset_parameters`, or the model is sharded.
    """
    refuse_undrawable_weights(model)
    model_copy = copy.deepcopy(model)
    for module in model_copy.modules():
        if isinstance(module, Resettable):
            module.reset_parameters()
    return model_copy


def refuse_undrawable_weights(model: nn.Module) -> None:
    """Raises if a module holds weights but has no `reset_parameters`, or the model is sharded.

    Raises:
        ValueError: The message names the module.
    """
    if is_model_sharded(model):
        raise UnfitProcesses("fresh weights for a sharded model need a function that builds it: pass build=")
    for name, module in model.named_modules():
        if not isinstance(module, Resettable) and list(module.parameters(recurse=False)):
            raise ValueError(
                f"module {name or type(module).__name__!r} has weights but no reset_parameters(): give its "
                "class such a method, which draws them, or in Python pass build="
            )


@contextmanager
def add_time(cost: Cost) -> Iterator[None]:
    """Adds the wall time of the body to `cost.seconds`."""
    start = time.perf_counter()
    yield
    cost.seconds += time.perf_counter() - start

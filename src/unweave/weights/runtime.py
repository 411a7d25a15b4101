"""What all steps of one descent share: the model as it is run, the processes, counts and kept gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unweave.tasks import Task
from unweave.weights.cost import Cost
from unweave.weights.params import Params
from unweave.weights.processes import Processes

Precision = Literal["fp32", "bf16"]


@dataclass
class Runtime:
    """What all steps of one descent share.

    Args:
        model: The module that is run.
        scorer: The task, which scores outputs; None if the caller's own closures do that.
        precision: The type of the forward pass; weights and gradients stay as they are.
        processes: The processes that share the work.
        cost: Counts gradient evaluations and examples.
        where: A multiplier in [0, 1] per weight, applied to every gradient before anything reads it.
        unused: Names of weights that need no gradient.
        noise: The seed of this step's dropout masks; None if dropout is off.
        losses: The name of every evaluated loss and this process's shares of its value, on the device.
        shifts: The step and the size of some lookaheads, relative to the norm of the weights; not recorded if
            None.
        lagged_terms: The ids of the terms whose gradients the next step needs.
        reused_gradients: Gradients that several steps reuse, by the id of their term.
        before: The gradients of the previous step that the next one needs, by the id of their term.
        spare_memory: Memory for the saved weights during a lookahead, reused by the next.
        compile: Compile the forward passes.
    """

    model: nn.Module
    scorer: Task | None
    precision: Precision = "fp32"
    processes: Processes = field(default_factory=Processes)
    cost: Cost = field(default_factory=Cost)
    where: Params | None = None
    unused: frozenset[str] = frozenset()
    noise: int | None = None
    losses: list[tuple[str, list[Tensor]]] = field(default_factory=list)
    shifts: list[tuple[int, Tensor]] | None = None
    lagged_terms: set[int] = field(default_factory=set)
    reused_gradients: dict[int, Params] = field(default_factory=dict)
    before: dict[int, Params] = field(default_factory=dict)
    spare_memory: list[list[Tensor]] = field(default_factory=list)
    compile: bool = False

    def __post_init__(self) -> None:
        self.forward = cast(nn.Module, torch.compile(self.model)) if self.compile else self.model
        self.norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]

    @property
    def task(self) -> Task:
        """The task, which scores outputs."""
        if self.scorer is None:
            raise ValueError("these steps have no task: only closures can be followed")
        return self.scorer

    @contextmanager
    def keep_statistics(self) -> Iterator[None]:
        """Keeps BatchNorm's running statistics unchanged for the body; it still normalises by the batch."""
        # False inside another `keep_statistics`
        flags = [m.track_running_stats for m in self.norms]
        for m in self.norms:
            m.track_running_stats = False
        try:
            yield
        finally:
            for m, flag in zip(self.norms, flags, strict=True):
                m.track_running_stats = flag

    @contextmanager
    def same_noise(self, place: int) -> Iterator[None]:
        """Gives all passes over one batch the same dropout masks; restores torch's global generator."""
        if self.noise is None:
            yield
            return
        device = next(self.model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.noise + place * self.processes.count + self.processes.rank)
            yield

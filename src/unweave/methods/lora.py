"""LoRA (Hu et al., ICLR 2022), https://arxiv.org/abs/2106.09685, around any method that descends.

    LoRA(LUR(), rank=8)

The method trains additions of low rank to the weights of some layers, by peft; all weights of the model stay
frozen. So gradients, momentum and the copies that a lookahead makes are small, and the original is the model
with its additions switched off. At the end the additions are merged: the result has the layers and weights of
the original.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import ClassVar

import torch
from torch import nn

from unweave.choices import refuse_no_pattern, refuse_outside
from unweave.errors import Failed
from unweave.methods.about import REFERENCE, About, refuse_family, refuse_no_method
from unweave.methods.pipeline import JOINT, Pipeline, Stage, describe
from unweave.problem import Problem
from unweave.tasks.low_rank import (
    WithoutAdditions,
    add_low_rank,
    detach_additions,
    find_additions,
    merge,
    remove,
    require_peft,
)
from unweave.tasks.low_rank_layers import find_layers
from unweave.weights.sharded import add_rows
from unweave.weights.sharded_model import reshard

__all__ = ["LoRA"]


@dataclass(frozen=True)
class LoRA:
    """Trains low-rank additions to the weights of some layers instead of the weights, and merges them.

    Args:
        method: The method that trains them, or a pipeline.
        rank: The rank of the additions; their scale is one.
        layers: A pattern for the names of the layers that get one; all linear and convolutional ones if None.

    Raises:
        ValueError: If the method does more to weights than to descend, or is a reference.
    """

    about: ClassVar[About]
    method: Stage
    rank: int = 8
    layers: str | None = None

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "rank")
        refuse_no_pattern(self, "layers")
        refuse_no_method(self.method, "the method of LoRA")
        refuse_edits(self.method)
        object.__setattr__(self, "about", describe((self.method,)))  # depends on the method

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If peft is missing, no layer can have an addition, or the model has some already.
            Failed: If a buffer of the model changes, which additions do not hold.
        """
        refuse_family(self.method, problem.task)
        require_peft()
        model = problem.model
        if find_additions(model):
            raise ValueError("LoRA needs a model without low-rank additions, found some: merge them first")
        layers = find_layers(model, self.layers)
        buffers = {name: each.clone() for name, each in model.named_buffers()}
        trainable = frozenset(problem.params)
        with temporary_additions(model, layers, self.rank, problem.seed()):
            self.method(adapt(problem, trainable))
            refuse_other_buffers(model, buffers)
            problem.additions = detach_additions(model, self.rank)
            if problem.processes.sharded:
                reshard(model)
            merge(model, add_rows)


@dataclass
class LowRankProblem(Problem):
    """A request to a model with low-rank additions that are not trained yet.

    Args:
        trainable: The names of the weights that are trainable without additions.
    """

    trainable: frozenset[str] = frozenset()

    @cached_property
    def original(self) -> nn.Module:
        """The model with its additions switched off."""
        return WithoutAdditions(self.model)

    def problem_copy(self, name: str) -> Problem:
        """The same request on a whole copy of the original, without additions."""
        problem = super().problem_copy(name)
        remove(problem.model)
        for each, p in problem.model.named_parameters():
            p.requires_grad_(each in self.trainable)
        return problem


def adapt(problem: Problem, trainable: frozenset[str]) -> LowRankProblem:
    """The same request for a model that got additions; cost, curves and traces are shared."""
    fields = {name: value for name, value in vars(problem).items() if name in Problem.__dataclass_fields__}
    return LowRankProblem(**fields, trainable=trainable)


@contextmanager
def temporary_additions(model: nn.Module, layers: list[str], rank: int, seed: int) -> Iterator[None]:
    """Gives a model low-rank additions for the body; its own weights are then trainable again."""
    weights = [p for p in model.parameters() if p.requires_grad]
    add_low_rank(model, layers, rank, seed)
    try:
        yield
    finally:
        remove(model)
        for p in weights:
            p.requires_grad_(True)


def refuse_edits(method: Stage) -> None:
    """Raises if a method does more to weights than to descend, or is a reference."""
    name, about = name_of(method), describe((method,))
    if isinstance(method, LoRA):
        raise ValueError("LoRA trains additions by a method, found LoRA within LoRA: give one rank")
    if REFERENCE in about.paper.split("; then "):
        raise ValueError(f"LoRA trains additions by a method, found the reference {name}: leave out LoRA")
    if about.edits:
        raise ValueError(
            f"LoRA leaves the weights alone until the end, and {name} {about.edits}: use another method, "
            "or leave out LoRA"
        )


def name_of(method: Callable[[Problem], None]) -> str:
    """The name of a method in tables and errors; of a pipeline, the names of its stages."""
    if isinstance(method, LoRA):
        return f"{name_of(method.method)} with LoRA"
    if isinstance(method, Pipeline):
        return JOINT.join(method.names)
    return method.__name__ if isinstance(method, FunctionType) else type(method).__name__


def refuse_other_buffers(model: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    """Raises if a buffer has changed, which the additions do not hold."""
    for name, each in model.named_buffers():
        if not torch.equal(each, buffers[name]):
            raise Failed(f"the buffer {name!r} changed, and LoRA's additions do not hold it: leave out LoRA")

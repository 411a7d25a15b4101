"""Measures what a method or a training costs, in gradient evaluations and seconds."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from unweave.problem import Problem, add_time
from unweave.weights.cost import Cost

Changed = tuple[tuple[Any, ...], dict[str, Any]]
"""Replacement arguments of a function, by position and by name."""


def run_and_time(problem: Problem, method: Callable[[Problem], None]) -> Cost:
    """Runs a method and returns its cost, with the full cost of the shared results that it used.

    Raises:
        ValueError: If the method replaces the problem's model by another object.
    """
    warm_up()
    model, old_names = problem.model, set(problem.memory)
    start = time.perf_counter()
    method(problem)
    if problem.model is not model:
        raise ValueError(
            "a method must edit problem.model in place, found another object there, of "
            f"{type(problem.model).__name__}: copy its weights into problem.model by load_state_dict()"
        )
    synchronize(problem.device)
    wall = time.perf_counter() - start
    memory_seconds = sum(cost.seconds for name, (_, cost) in problem.memory.items() if name not in old_names)
    return replace(problem.cost, seconds=wall - memory_seconds + problem.cost.seconds)


@cache
def warm_up() -> None:
    """Makes an optimizer once: torch then imports its compiler, which would cost the first run a second."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)


def synchronize(device: torch.device | str) -> None:
    """Waits for the device to finish, so that a clock can be read."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def count_training(cost: Cost) -> Iterator[None]:
    """Adds the cost of any training in the body, a user's own code included.

    A step of a torch optimizer in this process counts as one gradient evaluation, even if its gradient was
    accumulated over several batches; with a closure, each call of the closure counts. Optimizers of different
    weights that step one after the other count as one.
    """
    counted_weights: set[int] = set()

    def add(optimizer: Optimizer, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Changed | None:
        itself, closure, *_ = *arguments, keywords.get("closure")
        if callable(closure):  # LBFGS computes several gradients a step
            return (itself, partial(ask, closure)), {}
        weights = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not counted_weights or not weights.isdisjoint(counted_weights):
            counted_weights.clear()
            cost.gradients += 1
        counted_weights.update(weights)
        return None

    def ask(closure: Callable[[], object]) -> object:
        cost.gradients += 1
        return closure()

    hook = register_optimizer_step_pre_hook(add)
    try:
        with add_time(cost):
            yield
    finally:
        hook.remove()

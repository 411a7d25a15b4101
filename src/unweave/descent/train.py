"""Originals and retrained references: training from fresh weights on a part of a split, kept by digest."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.descent.saved_state import Saved
from unweave.problem import Problem, add_time
from unweave.record import checkpoint
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.classifier import Classifier
from unweave.weights.cost import Cost

TRAINING_FORMAT = 1
"""Stands for all code that decides the weights of a model of given settings, data and seed.

Raise it in the commit that changes those weights: kept models are then trained again.
"""

STATE = "state.pt"
"""What an interrupted training goes on from."""

Changed = tuple[tuple[Any, ...], dict[str, Any]]
"""What a function gets instead of its arguments, by position and by name."""


@dataclass(frozen=True)
class Trained:
    """A model and what it cost to train, also where it was read from disk.

    Args:
        model: In evaluation mode.
        cost: Of its training.
    """

    model: nn.Module
    cost: Cost


def train_model(
    how: Descent,
    build: Callable[[], nn.Module],
    split: Split,
    part: Literal["mixed", "retain"],
    seed: int,
    *,
    task: Task | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    save_every: int | None = None,
) -> Trained:
    """Trains on forget and retain data ("mixed": an original) or on retain data alone (a reference).

    Models of one seed begin at the same weights, whatever the part.

    Args:
        how: The training.
        build: Makes a model; its weights come from torch's global generator, seeded here.
        split: The data.
        part: The part to train on.
        seed: Of the weights and of the order of the data.
        task: How the model is scored; classification if None.
        device: Where it is trained.
        cache: A folder that keeps trained models, by a digest of all that they depend on; None keeps nothing.
        save_every: The number of steps between two states that are kept there until the training is over, so
            that an interrupted one goes on from the last; none is if None.

    Raises:
        Failed: If the loss is no longer finite.
        ValueError: If a kept model was trained on other data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().to(device)
    facts = {"split": split.digest(part), "part": part, "recipe": repr(how), "seed": seed}
    facts |= {"format": TRAINING_FORMAT, "task": repr(task)}
    built = {"model": repr(model), "weights": checkpoint.architecture(model.state_dict()), "device": device}
    place = None if cache is None else cache / digest({**facts, **built})[:20]
    if place is not None and (place / checkpoint.WEIGHTS).exists() and (place / checkpoint.SIDECAR).exists():
        sidecar = checkpoint.load(place, model, split_digest=split.digest(part))
        return Trained(model.eval(), Cost(**cast(Mapping, sidecar["cost"])))
    generator = torch.Generator().manual_seed(seed)
    problem = Problem(task or Classifier(split.n_classes), model, split, generator, build)
    saved = None if place is None or save_every is None else Saved(place / STATE, save_every)
    warm_up()
    with add_time(problem.cost):
        descend(problem, how, Phase([nll(part)]), saved=saved)
        synchronize(device)
    if place is not None:
        checkpoint.save(place, model.state_dict(), {**facts, "cost": dataclasses.asdict(problem.cost)})
        (place / STATE).unlink(missing_ok=True)
    return Trained(model.eval(), problem.cost)


def synchronize(device: torch.device | str) -> None:
    """Waits until the device has done what it was told, so that a clock can be read."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def count_training(cost: Cost) -> Iterator[None]:
    """Adds what training in the body takes to a cost, also where that is a user's own code.

    One gradient evaluation is a call of the closure that an optimizer of torch gets in this process, or else
    a step of it, whether or not its gradient was gathered over several batches. Optimizers of different
    weights that step one after the other are taken to share a gradient.
    """
    shared: set[int] = set()

    def add(optimizer: Optimizer, given: Sequence[Any], named: Mapping[str, Any]) -> Changed | None:
        itself, closure, *_ = *given, named.get("closure")
        if callable(closure):  # LBFGS asks for many gradients a step
            return (itself, partial(ask, closure)), {}
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not shared or not own.isdisjoint(shared):
            shared.clear()
            cost.gradients += 1
        shared.update(own)
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


def run_and_time(problem: Problem, method: Callable[[Problem], None]) -> Cost:
    """Runs a method and returns what it cost: wall time, and that of results it shares, whoever made them.

    Raises:
        ValueError: If it puts another model in the place of the problem's.
    """
    warm_up()
    model, before = problem.model, set(problem.memory)
    start = time.perf_counter()
    method(problem)
    if problem.model is not model:
        raise ValueError(
            "a method must edit problem.model in place, found another object there, of "
            f"{type(problem.model).__name__}: copy its weights into problem.model by load_state_dict()"
        )
    synchronize(problem.device)
    wall = time.perf_counter() - start
    made_here = sum(cost.seconds for name, (_, cost) in problem.memory.items() if name not in before)
    return replace(problem.cost, seconds=wall - made_here + problem.cost.seconds)


@cache
def warm_up() -> None:
    """Makes an optimizer: torch then imports its compiler, a second that the first comer would be charged."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)


def digest(facts: Mapping[str, object]) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

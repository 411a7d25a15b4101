"""Estimates the cost of methods: runs each for a few steps and extrapolates linearly.

A method's lengths are the numbers of steps or epochs of its descents, including the stages of a pipeline and
proxies. The method runs with all of them short, then with each in turn a little longer:

    T(full) = T(short) + sum_i (full_i - short_i) (T(longer_i) - T(short)) / (longer_i - short_i).

Costs independent of the length, such as a pass for a mask, are in T(short). A recovery that may end early
counts in full; one with a budget gets the rest of it after the other lengths. T is the CPU time of this
process, all threads together, because wall time grows with the other work of a machine; on a GPU it is wall
time.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from unweave.bench.ranges import nest_paths
from unweave.cli.checks.rounds import Round, attempt, group_of_errors
from unweave.cli.inputs.scope import ALL, TrainedWeights
from unweave.cli.project import Project
from unweave.cli.terminal.describe_settings import descents
from unweave.descent.timing import count_training, run_and_time
from unweave.errors import Failed, UnfitProcesses
from unweave.methods import Method
from unweave.methods.configure import configure, stages_of
from unweave.methods.recover import Recover
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.copies import editable_copy
from unweave.weights.cost import Cost
from unweave.weights.processes import Processes
from unweave.weights.sharded_model import ShardedOriginal, is_model_sharded

SHORT, LONGER, PATIENCE = 2, 8, 1.0
"""Steps of the short and of the longer runs; after a slow short run, of more seconds, one step is added."""
NEVER = 1e-9
"""An aim that no recovery reaches, as a share of the original's loss."""

log = logging.getLogger(__name__)


@runtime_checkable
class Runnable(Protocol):
    """What a method runs on besides a model and its split."""

    @property
    def build(self) -> Callable[[], nn.Module] | None:
        """Makes a model with fresh weights; None if the model's modules redraw themselves."""
        ...

    def task(self, split: Split) -> Task:
        """The task of the model during unlearning."""
        ...


@dataclass(frozen=True)
class Length:
    """The length of a descent.

    Args:
        unit: About how much one step adds to it.
        full: Its full value.
        budget: Whether it counts the gradient evaluations of the whole run.
    """

    unit: float
    full: float
    budget: bool = False

    def share(self, steps: int, evaluations: float) -> float:
        """The extra length of the full run over the short one, divided by that of the longer run.

        Args:
            steps: The steps of the longer run.
            evaluations: The gradient evaluations of the short run, with all other lengths in full.
        """
        full = max(0.0, self.full - (evaluations - SHORT)) if self.budget else self.full / self.unit
        return (full - SHORT) / (steps - SHORT)


def method_rounds(method: Method, model: nn.Module, split: Split, project: Runnable) -> Iterator[Round]:
    """Yields the cost of a method, measured anew each time; the model stays unchanged."""
    lengths, method = lengths_of(method, split), without_early_end(method)

    def run(steps: Mapping[str, float]) -> Cost:
        return time_method(method, steps, model, split, project)

    while True:
        yield extrapolate(lengths, run)


def named_rounds(
    name: str, model: nn.Module, split: Split, project: Project, trained: TrainedWeights = ALL
) -> Iterator[Round]:
    """Yields the cost of the method of that name, which trains those weights."""
    yield from method_rounds(trained.wrap(project.method(name)), model, split, project)


def extrapolate(lengths: Mapping[str, Length], run: Callable[[Mapping[str, float]], Cost]) -> Round:
    """One round: the cost of the full run, and whether the short run is quick.

    Args:
        lengths: The lengths of the method.
        run: Runs the method with these lengths.
    """
    short = shortest(lengths)
    base = run(short)
    seconds, gradients = base.seconds, float(base.gradients)
    quick = is_quick(base)
    steps = LONGER if quick else SHORT + 1
    for path, each in lengths.items():
        share = each.share(steps, gradients)
        if not share:
            continue  # the short run took it in full
        longer = run({**short, path: each.unit * steps})
        if longer.gradients > base.gradients:  # otherwise a proxy that is not used
            seconds += share * max(0.0, longer.seconds - base.seconds)
            gradients += share * (longer.gradients - base.gradients)
    return Round(seconds, max(0.0, gradients), quick)


def shortest(lengths: Mapping[str, Length]) -> dict[str, float]:
    """The lengths of a short run."""
    return {path: each.unit * SHORT for path, each in lengths.items()}


def refuse_unfit_processes(method: Method, model: nn.Module, split: Split, project: Runnable) -> None:
    """Raises if processes that share a model can't run a method; tries a few steps, from any weights."""
    try:
        time_method(without_early_end(method), shortest(lengths_of(method, split)), model, split, project)
    except UnfitProcesses:
        raise
    except (Failed, ValueError) as error:  # it may speak of these weights, which are not the original's
        log.info("a short run ended with: %s", error)


def is_quick(cost: Cost) -> bool:
    """Whether a short run is quick enough to measure it again; the first process decides for all."""
    return Processes.current().from_first(lambda: cost.seconds < PATIENCE)


def warm_up(project: Project, model: nn.Module, split: Split, trained: TrainedWeights) -> None:
    """Runs a method first, because the first run includes torch's own start."""
    run = named_rounds("finetune", model, split, project, trained)
    attempt("warm up", lambda: next(run), group_of_errors())  # each measurement says again what is wrong


def lengths_of(method: Method, split: Split) -> dict[str, Length]:
    """The lengths of a method by their fields; those with a budget last."""
    lengths: dict[str, Length] = {}
    for path, how in descents(method).items():
        if how.steps is not None:
            lengths[f"{path}.steps"] = Length(1.0, how.steps)
        elif how.epochs is not None:
            lengths[f"{path}.epochs"] = Length(1 / math.ceil(len(split.retain) / how.batch), how.epochs)
    for path, budget in budgets(method).items():
        lengths = {name: each for name, each in lengths.items() if not name.startswith(f"{path}how.")}
        lengths[f"{path}how.steps"] = Length(1.0, budget, budget=True)
    return lengths


def budgets(method: Method) -> dict[str, int]:
    """The budget of every recovery that has one, by the prefix of its fields."""
    by_stage = {path: each.budget for path, each in stages_of(method).items() if isinstance(each, Recover)}
    return {path: budget for path, budget in by_stage.items() if budget is not None}


def without_early_end(method: Method) -> Method:
    """The method with recoveries that never end early."""
    tables: dict[str, Any] = {}
    for path, each in stages_of(method).items():
        if isinstance(each, Recover):
            tables[f"{path}budget"] = None
            tables |= {} if each.until is None else {f"{path}until.near": NEVER}
    return configure(method, nest_paths(tables))


def time_method(
    method: Method, lengths: Mapping[str, float], model: nn.Module, split: Split, project: Runnable
) -> Cost:
    """The cost of a method at these lengths, on a copy of the model; a sharded one is restored afterwards."""
    settings = {path: value if path.endswith("epochs") else round(value) for path, value in lengths.items()}
    generator = torch.Generator().manual_seed(0)
    is_sharded, configured_method = is_model_sharded(model), configure(method, nest_paths(settings))
    original = ShardedOriginal(model) if is_sharded else model
    edited_model = model if is_sharded else editable_copy(model)
    task = project.task(split)
    problem = Problem(task, edited_model, split, generator, project.build, caller_model=original)
    clock = clock_of(problem.device)
    start = clock()
    try:
        cost = run_and_time(problem, configured_method)
        return replace(cost, seconds=clock() - start)
    finally:
        if isinstance(original, ShardedOriginal):
            original.restore()


def clock_of(device: torch.device) -> Callable[[], float]:
    """CPU time for a model on the CPU, otherwise wall time."""
    return cpu_seconds if device.type == "cpu" else time.perf_counter


def cpu_seconds() -> float:
    """CPU time of this process, all threads, and of processes that it started and that ended."""
    return time.process_time() + sum(os.times()[2:4])


def retraining_rounds(project: Project, model: nn.Module, split: Split) -> Iterator[Round]:
    """Yields the cost of a retrain, by the recipe or by `train(dataset, seed)`, measured anew each time."""
    if project.scratch is not None:
        return method_rounds(project.scratch, model, split, project)
    return training_rounds(project, model, split)


def training_rounds(project: Project, model: nn.Module, split: Split) -> Iterator[Round]:
    """Yields the cost of a project's `train(dataset, seed)` on the retain set, from two small parts of it.

    It assumes that the cost is linear in the number of examples, as for a fixed number of epochs.

    Raises:
        ValueError: If there are too few examples.
    """
    order = split.retain[torch.randperm(len(split.retain), generator=torch.Generator().manual_seed(0))]
    # several batches, as one that is not full takes as many gradients as a full one
    count = min(len(order) // 3, max(256, len(order) // 100))
    if count < 2:
        raise ValueError(f"too few examples to tell: {len(order)}")
    device = next(model.parameters()).device
    time_training(project, split, order[:count], device)  # includes torch's own start
    longer = (len(order) - count) / (2 * count)
    while True:
        smaller, larger = (time_training(project, split, order[:n], device) for n in (count, 3 * count))
        yield Round(
            smaller.seconds + longer * max(0.0, larger.seconds - smaller.seconds),
            smaller.gradients + longer * max(0, larger.gradients - smaller.gradients) or None,
            is_quick(smaller),
        )


def time_training(project: Project, split: Split, subset: torch.Tensor, device: torch.device) -> Cost:
    """The cost of a training on some of the retain set; no gradients without a torch optimizer."""
    assert project.retrain is not None
    left_out = torch.ones(len(split.train), dtype=torch.bool).index_fill_(0, subset, False).nonzero()[:, 0]
    part = Split(split.train, left_out, split.held_out, calibration=split.calibration.tolist())
    cost, clock = Cost(), clock_of(device)
    start = clock()
    with count_training(cost):
        project.retrain(part, 0)
    return replace(cost, seconds=clock() - start)

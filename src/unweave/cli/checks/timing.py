"""Estimates the cost of methods: runs each for a few steps and extrapolates linearly.

A method's lengths are the numbers of steps or epochs of its descents, including the stages of a pipeline and
proxies. The method runs with all of them short, then with each in turn a little longer:

    T(full) = T(short) + sum_i (full_i - short_i) (T(longer_i) - T(short)) / (longer_i - short_i).

Costs independent of the length, such as a pass for a mask, are in T(short). A recovery that may end early
counts in full; one with a budget gets the rest of it after the other lengths. Times of a few steps vary, on a
busy machine by a factor of two, so what is quick is measured in several rounds, and the range is shown.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from unweave.bench.peak_memory import peak_memory
from unweave.bench.ranges import nest_paths
from unweave.cli.inputs.scope import ALL, TrainedWeights
from unweave.cli.project import Project
from unweave.cli.terminal.describe_settings import descents
from unweave.descent.timing import run_and_time
from unweave.methods import Method
from unweave.methods.configure import configure, stages_of
from unweave.methods.recover import Recover
from unweave.problem import Problem, add_time
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.copies import editable_copy
from unweave.weights.cost import Cost
from unweave.weights.processes import Processes
from unweave.weights.sharded_model import ShardedOriginal, is_model_sharded

SHORT, LONGER, PATIENCE = 2, 8, 1.0
"""Steps of the short and of the longer runs; after a slow short run, of more seconds, one step is added."""
ROUNDS = 3
"""The number of rounds of measurements; one where the short run is slow."""
NEVER = 1e-9
"""An aim that no recovery reaches, as a share of the original's loss."""


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a method.

    Args:
        seconds: Wall time, the median of the rounds; None if it can't be run.
        gradients: Gradient evaluations.
        peak_mib: The peak memory in MiB, of several processes the largest; None if unknown.
        refused: The reason if the method can't be run; otherwise None.
        seconds_range: The least and the most seconds of the rounds; None if there was one.
    """

    seconds: float | None
    gradients: float | None
    peak_mib: float | None
    refused: str | None = None
    seconds_range: tuple[float, float] | None = None

    def relative_to(self, other: "Estimate | None") -> float | None:
        """The time as a multiple of another's."""
        if self.seconds is None or other is None or not other.seconds:
            return None
        return self.seconds / other.seconds


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


def estimate(method: Method, model: nn.Module, split: Split, project: Runnable) -> Estimate:
    """Estimates the cost of a method on a model, or says why it can't run; the model stays unchanged."""
    lengths, method, processes = lengths_of(method, split), without_early_end(method), Processes.current()

    def run(steps: Mapping[str, float]) -> Cost:
        return time_method(method, steps, model, split, project)

    try:
        with peak_memory(next(model.parameters()).device) as peak:
            seconds, gradients, is_quick = extrapolate(lengths, run, processes)
            more = [extrapolate(lengths, run, processes)[0] for _ in range(1, ROUNDS) if is_quick]
    except (
        ValueError,
        RuntimeError,
    ) as error:  # torch may not train a compiled model
        return Estimate(None, None, None, first_line(error))
    return from_rounds([seconds, *more], max(0.0, gradients), processes.largest(peak.mib))


def extrapolate(
    lengths: Mapping[str, Length], run: Callable[[Mapping[str, float]], Cost], processes: Processes
) -> tuple[float, float, bool]:
    """One round: seconds and gradient evaluations of the full run, and whether the short run is quick.

    Args:
        lengths: The lengths of the method.
        run: Runs the method with these lengths.
        processes: The first one decides what is quick, for all.
    """
    short = {path: each.unit * SHORT for path, each in lengths.items()}
    base = run(short)
    seconds, gradients = base.seconds, float(base.gradients)
    is_quick = processes.from_first(lambda: base.seconds < PATIENCE)
    steps = LONGER if is_quick else SHORT + 1
    for path, each in lengths.items():
        share = each.share(steps, gradients)
        if not share:
            continue  # the short run took it in full
        longer = run({**short, path: each.unit * steps})
        if longer.gradients > base.gradients:  # otherwise a proxy that is not used
            seconds += share * max(0.0, longer.seconds - base.seconds)
            gradients += share * (longer.gradients - base.gradients)
    return seconds, gradients, is_quick


def from_rounds(
    seconds: Sequence[float], gradients: float | None = None, peak_mib: float | None = None
) -> Estimate:
    """The estimate of several rounds, from the seconds that each gave."""
    known = [max(0.0, each) for each in seconds]
    between = (min(known), max(known)) if len(known) > 1 else None
    return Estimate(median(known), gradients, peak_mib, seconds_range=between)


def estimate_named(
    name: str, model: nn.Module, split: Split, project: Project, trained: TrainedWeights = ALL
) -> Estimate:
    """Estimates the cost of the method of that name, which trains those weights."""
    try:
        method = trained.wrap(project.method(name))
    except ValueError as error:
        return Estimate(None, None, None, str(error))
    return estimate(method, model, split, project)


def warm_up(project: Project, model: nn.Module, split: Split, trained: TrainedWeights) -> None:
    """Runs a method first, because the first run includes torch's own start."""
    estimate_named("finetune", model, split, project, trained)


def first_line(error: Exception) -> str:
    """The first line of an error; torch adds a page of advice."""
    return next(iter(str(error).splitlines()), type(error).__name__)


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
    whole = {path: value if path.endswith("epochs") else round(value) for path, value in lengths.items()}
    generator = torch.Generator().manual_seed(0)
    sharded, chosen = is_model_sharded(model), configure(method, nest_paths(whole))
    original = ShardedOriginal(model) if sharded else model
    edited = model if sharded else editable_copy(model)
    task = project.task(split)
    problem = Problem(task, edited, split, generator, project.build, caller_model=original)
    try:
        return run_and_time(problem, chosen)
    finally:
        if isinstance(original, ShardedOriginal):
            original.restore()


def estimate_retraining(project: Project, model: nn.Module, split: Split) -> Estimate | None:
    """Estimates the cost of a retrain; None if there is no way to retrain."""
    if project.scratch is not None:
        return estimate(project.scratch, model, split, project)
    return None if project.retrain is None else estimate_train(project, split)


def estimate_train(project: Project, split: Split) -> Estimate:
    """Estimates the cost of a project's `train(dataset, seed)` on the retain set, from two small parts of it.

    It assumes that the time is linear in the number of examples, as for a fixed number of epochs.
    """
    assert project.retrain is not None
    order = split.retain[torch.randperm(len(split.retain), generator=torch.Generator().manual_seed(0))]
    few = min(len(order) // 3, max(64, len(order) // 100))
    if few < 2:
        return Estimate(None, None, None, f"too few examples to tell: {len(order)}")
    try:
        first = time_training(project, split, order[:few])  # includes torch's own start
        rounds = ROUNDS if first < PATIENCE else 1
        pairs = [[time_training(project, split, order[:n]) for n in (few, 3 * few)] for _ in range(rounds)]
    except (
        ValueError,
        RuntimeError,
    ) as error:  # torch may not train a compiled model
        return Estimate(None, None, None, first_line(error))
    slopes = [max(0.0, larger - smaller) / (2 * few) for smaller, larger in pairs]
    return from_rounds(
        [smaller + slope * (len(order) - few) for (smaller, _), slope in zip(pairs, slopes, strict=True)]
    )


def time_training(project: Project, split: Split, subset: torch.Tensor) -> float:
    """The seconds of a training on some of the retain set."""
    assert project.retrain is not None
    left_out = torch.ones(len(split.train), dtype=torch.bool).index_fill_(0, subset, False).nonzero()[:, 0]
    part, cost = Split(split.train, left_out, split.held_out, calibration=split.calibration.tolist()), Cost()
    with add_time(cost):
        project.retrain(part, 0)
    return cost.seconds

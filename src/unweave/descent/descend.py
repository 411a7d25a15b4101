"""The training loop that all methods share."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice, pairwise

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from unweave.descent.batches import plan_inputs, step_batches
from unweave.descent.combine import combine_gradients
from unweave.descent.cuda_graph import CapturedDirection, refuse_changing_steps
from unweave.descent.feed import steps_per_epoch
from unweave.descent.importance import Mask
from unweave.descent.losses import collect_losses, refuse_nonfinite
from unweave.descent.optimizer_state import PinnedWeights, TrainState, start_average
from unweave.descent.saved_state import SavedDescent, open_saved
from unweave.descent.settings import Descent, Phase
from unweave.errors import UnfitProcesses
from unweave.problem import Problem
from unweave.tasks import evaluating
from unweave.tasks.low_rank import find_additions
from unweave.weights.params import Params, clip
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

__all__ = ["Descent", "Phase", "descend"]

LOSS_CHECK = 50
"""Number of steps between two checks of the losses, which wait for the device."""

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def descend(
    problem: Problem,
    how: Descent,
    *phases: Phase,
    optimizer: OptimizerFactory | None = None,
    still: Collection[nn.Module] = (),
) -> int:
    """Minimises the terms of each phase over `problem.model`, in place, with one optimizer.

    Args:
        problem: What to edit.
        how: The optimizer and the number of steps.
        phases: What to minimise, one phase after the other.
        optimizer: Makes your own optimizer, instead of the one that `how` names.
        still: BatchNorm modules that use their statistics unchanged, whatever `how.norm` says.

    Returns:
        The number of steps taken.

    Raises:
        ValueError: If a term can't be minimised on this model, or a saved state is that of another descent.
        Failed: If a loss or a weight is no longer finite; the message names it.
    """
    with training_mode(problem.model, how, still), open_saved(problem, how, phases, optimizer) as descent:
        refuse_batch_statistics(problem, how)
        refuse_unfit_shards(problem, how)
        refuse_changing_steps(problem, how, phases)
        end_step = descent.restore_end()
        if end_step is not None:
            return end_step
        weights = problem.params
        average = {} if how.ema is None else start_average(weights)
        train_state = TrainState(weights, (optimizer or how.optimizer_over)(list(weights.values())), average)
        step_counts: list[int] = []
        lengths = phase_lengths(problem, phases, how)
        for number, (phase, begin, steps) in enumerate(
            zip(phases, accumulate(lengths, initial=0), lengths, strict=False)
        ):
            saved_steps = descent.steps_of(number)
            span = (begin, begin + steps, sum(lengths))
            step_counts.append(
                run_phase(problem, phase, how, train_state, span=span, saved=descent, taken=step_counts)
                if saved_steps is None
                else saved_steps
            )
        train_state.keep_average()
        refuse_nonfinite(weights)
        descent.save_end(sum(step_counts))
    return sum(step_counts)


def run_phase(
    problem: Problem,
    phase: Phase,
    how: Descent,
    train_state: TrainState,
    *,
    span: tuple[int, int, int],
    saved: SavedDescent,
    taken: Sequence[int],
) -> int:
    """Runs one phase; returns the number of steps taken.

    `span` is its first step, its end and the total; `taken` are the steps of the earlier phases.
    """
    (begin, end, of), weights, update = span, train_state.weights, train_state.update
    runtime = make_runtime(problem, how, phase.where, compile=how.compile is True)
    runtime.shifts = []
    direction_of = CapturedDirection(combine_gradients) if how.compile == "step" else combine_gradients
    saved.start_phase(train_state, runtime, phase.terms)
    pinned_weights = PinnedWeights(weights, phase.where)
    index = -1
    for index, (batches, sizes) in enumerate(islice(step_batches(problem, phase, how), end - begin)):
        if saved.was_taken(index):
            continue
        saved.save(index, taken, train_state, runtime, phase.terms)
        for watch in (problem.watch, phase.watch):
            if watch:
                watch(problem, index)
        set_rate(update, how, (begin + index) / of)
        runtime.noise = problem.seed() if how.dropout == "same" else None
        step = Step(weights, runtime, batches, sizes, index=index, of=end - begin, before=runtime.before)
        move_weights(step, direction_of(step, phase, problem.generator), how, update)
        pinned_weights.restore(update)
        train_state.follow_average(how.ema, begin + index)
        runtime.before = {key: step.memory[key][1] for key in runtime.lagged_terms if key in step.memory}
        if index % LOSS_CHECK == LOSS_CHECK - 1:
            collect_losses(problem, runtime)
        if (index + 1) % how.stop_every == 0 and phase.is_over(problem, how, train_state):
            break
    collect_losses(problem, runtime)
    return index + 1


def make_runtime(problem: Problem, how: Descent, where: Mask | None, *, compile: bool = False) -> Runtime:
    """Makes what all steps of a descent share."""
    return Runtime(
        problem.model,
        problem.task,
        how.precision,
        problem.processes,
        problem.cost,
        where,
        frozenset(how.unused),
        compile=compile,
    )


def move_weights(step: Step, direction: Params, how: Descent, update: torch.optim.Optimizer) -> None:
    """Takes one step of the optimizer, and frees the gradient that it followed."""
    for name, p in step.params.items():
        p.grad = direction.get(name)
    if how.max_norm is not None and direction:
        clip(direction, how.max_norm)
    update.step()
    for p in step.params.values():
        p.grad = None  # `zero_grad` does this at several times the cost


def phase_lengths(problem: Problem, phases: Sequence[Phase], how: Descent) -> list[int]:
    """The number of steps of each phase; they add up to `how.steps`, if that is given.

    Raises:
        ValueError: If a phase gets none.
    """
    total = sum(phase.share for phase in phases)
    if how.epochs is not None:
        epochs = [steps_per_epoch(phase.feed, *plan_inputs(problem, phase, how)) for phase in phases]
        return [
            max(1, round(phase.share / total * how.epochs * n))
            for phase, n in zip(phases, epochs, strict=True)
        ]
    ends = [round((how.steps or 0) * share / total) for share in accumulate(phase.share for phase in phases)]
    lengths = [end - begin for begin, end in pairwise([0, *ends])]
    if 0 in lengths:
        raise ValueError(
            f"{how.steps} steps are too few for {len(phases)} phases: phase {1 + lengths.index(0)} gets none"
        )
    return lengths


@contextmanager
def training_mode(model: nn.Module, how: Descent, still: Collection[nn.Module] = ()) -> Iterator[None]:
    """Training mode with the norm and dropout settings of `how`; restores the mode of every module."""
    refuse_lost_statistics(model, how)
    with evaluating(model):
        model.train()
        for module in model.modules():
            frozen_norm = isinstance(module, _BatchNorm) and (how.norm == "frozen" or module in still)
            noisy = isinstance(module, _DropoutNd | nn.MultiheadAttention)
            # without dropout it stays in training mode: cuDNN has no backward in evaluation mode
            noisy |= isinstance(module, nn.RNNBase) and module.dropout > 0
            if frozen_norm or (noisy and how.dropout == "off"):
                module.training = False
        yield


def refuse_batch_statistics(problem: Problem, how: Descent) -> None:
    """Raises if BatchNorm would normalise by the shard of one process among several."""
    norms = [m for m in problem.model.modules() if isinstance(m, _BatchNorm)]
    if problem.processes.count > 1 and how.norm == "train" and norms:
        raise UnfitProcesses(
            "norm='train' normalises by the shard of a process, so several would not equal one: "
            "use norm='frozen'"
        )
    if problem.processes.count > 1 and any(m.running_mean is None for m in norms):
        raise UnfitProcesses(
            "a BatchNorm without running statistics normalises by the shard of a process, so several would "
            "not equal one: use one process"
        )


def refuse_lost_statistics(model: nn.Module, how: Descent) -> None:
    """Raises if BatchNorm would update its statistics, which low-rank additions do not hold."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if how.norm == "train" and norms and find_additions(model):
        raise ValueError(
            "norm='train' updates BatchNorm's statistics, and LoRA's additions do not hold them: use "
            "norm='frozen' in every stage"
        )


def refuse_unfit_shards(problem: Problem, how: Descent) -> None:
    """Raises if the passes of a sharded model are to be compiled, or its optimizer needs whole tensors."""
    if problem.processes.sharded and how.compile:
        raise UnfitProcesses("the passes of a sharded model are not compiled yet: set compile = false")
    if problem.processes.sharded and how.optimizer == "adafactor":
        raise UnfitProcesses(
            "optimizer 'adafactor' needs the rows and columns of whole tensors, and a sharded model holds "
            "pieces: set optimizer = 'adamw'"
        )


def set_rate(update: torch.optim.Optimizer, how: Descent, progress: float) -> None:
    """Sets the learning rate of every parameter group, relative to its initial one."""
    for group in update.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * how.rate(progress)

"""The training loop that all methods share."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, islice, pairwise, tee
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.descent.feed import FEEDS, FeedName, Plan, steps_per_epoch
from unweave.descent.importance import Mask
from unweave.descent.losses import collect_losses, is_forgotten, refuse_nonfinite
from unweave.descent.optimizer_state import Pinned, TrainState, start_average
from unweave.descent.rules import RULES, Rule, RuleName
from unweave.descent.saved_state import StateFile
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch, evaluating
from unweave.weights.params import Params, clip, combine, gramian, rebuild
from unweave.weights.sharded import names_where, pieces
from unweave.weights.step import Precision, Runtime, Step, Term

__all__ = ["Descent", "Phase", "descend"]

CHECK = 50
"""Number of steps between two checks of the losses, which wait for the device."""

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Descent:
    """Length, optimizer and learning rate of a training.

    Args:
        lr: The learning rate.
        steps: The number of updates; give this or `epochs`.
        epochs: The number of passes, as the feed counts them; give this or `steps`.
        batch: The number of retain (or mixed) examples per step, over all processes.
        forget_batch: The number of forget examples per step; `batch` if None.
        micro_batch: The largest number of examples in one forward pass; no limit if None.
        optimizer: The optimizer; `descend` takes a user's own instead.
        momentum: The momentum of SGD.
        weight_decay: The weight decay.
        schedule: How the learning rate falls, after the warm-up.
        warmup: The fraction of steps over which it first rises, linearly.
        max_norm: The largest norm of the combined gradient; no limit if None.
        norm: "train": BatchNorm normalises by the batch and updates its statistics. "frozen": it uses its
            statistics unchanged.
        dropout: "off": no dropout. "same": dropout draws one mask for all passes of a step.
        ema: The decay of an average of the weights, which becomes the result; no average if None. After n
            steps the decay is at most (1 + n) / (10 + n), as in TensorFlow: with a constant decay a short run
            would end near its first weights, and the average would hide what it forgot.
        precision: The number type of the forward passes.
        compile: Compile the forward passes. Compilation takes minutes and needs a C++ compiler; it pays on a
            GPU in long trainings. torch then chooses the memory layout of convolutions, and no second
            derivative is available.
        stop: "forgotten" ends a phase that uses the forget set once the mean loss on the forget set has
            reached the mean loss on the calibration set.
        stop_every: The number of steps between two checks of `stop`.
        unused: Names of weights that the loss need not depend on.
    """

    lr: float = 0.05
    steps: int | None = None
    epochs: float | None = None
    batch: int = 128
    forget_batch: int | None = None
    micro_batch: int | None = None
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: float = 0.0
    max_norm: float | None = None
    norm: Literal["train", "frozen"] = "train"
    dropout: Literal["off", "same"] = "off"
    ema: float | None = None
    precision: Precision = "fp32"
    compile: bool = False
    stop: Literal["never", "forgotten"] = "never"
    stop_every: int = 10
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "(0, inf)", "lr", "epochs")
        refuse_outside(self, "(0, inf]", "max_norm")
        refuse_outside(self, "[1, inf)", "steps", "batch", "forget_batch", "micro_batch", "stop_every")
        refuse_outside(self, "[0, 1)", "warmup", "momentum", "ema")
        refuse_outside(self, "[0, inf)", "weight_decay")
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"a descent needs either steps or epochs, found steps={self.steps}, epochs={self.epochs}"
            )

    def rate(self, progress: float) -> float:
        """The learning rate at a progress in [0, 1), relative to `lr`."""
        if progress < self.warmup:
            return progress / self.warmup
        decay = (progress - self.warmup) / (1 - self.warmup)
        return {"constant": 1.0, "linear": 1 - decay, "cosine": (1 + math.cos(math.pi * decay)) / 2}[
            self.schedule
        ]

    def optimizer_over(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer over these weights."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(weights, self.lr, self.momentum, weight_decay=self.weight_decay)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(weights, self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Phase:
    """A stretch of a descent.

    Args:
        terms: One gradient per term; a sum of objectives is one term.
        rule: How to combine the gradients of the terms: a name, or your own rule.
        where: A multiplier in [0, 1] per weight; a weight with multiplier zero ends bit for bit unchanged.
        feed: The order in which examples arrive.
        idle: Allow a zero gradient at step 0, as of a loss that starts at its minimum; otherwise it is an
            error.
        share: The fraction of the steps, relative to the other phases.
        watch: Called before every step with the problem and the number of the step: for probes, and for edits
            of trainable weights.
        until: Ends the phase early once it returns true. It is called every `stop_every` steps, on the
            average of the weights if there is one.
    """

    terms: Sequence[Term]
    rule: RuleName | Rule = "total"
    where: Mask | None = None
    feed: FeedName = "paired"
    idle: bool = False
    share: float = 1.0
    watch: Callable[[Problem, int], None] | None = None
    until: Callable[[Problem], bool] | None = None

    def is_over(self, problem: Problem, how: Descent, train_state: TrainState) -> bool:
        """Whether the phase ends at this step."""
        follows_forget = any(term.parts & {"forget", "mixed"} for term in self.terms)
        if how.stop == "forgotten" and follows_forget and is_forgotten(problem, how.batch):
            return True
        if self.until is None:
            return False
        with train_state.use_average():
            return self.until(problem)


def descend(
    problem: Problem,
    how: Descent,
    *phases: Phase,
    optimizer: OptimizerFactory | None = None,
    state_file: StateFile | None = None,
    still: Collection[nn.Module] = (),
) -> int:
    """Minimises the terms of each phase over `problem.model`, in place, with one optimizer.

    Args:
        problem: What to edit.
        how: The optimizer and the number of steps.
        phases: What to minimise, one phase after the other.
        optimizer: Makes your own optimizer, instead of the one that `how` names.
        state_file: Saves the state of the descent, so that it can be resumed. Only for one phase without a
            mask, whose terms remember nothing from step to step, such as training.
        still: BatchNorm modules that use their statistics unchanged, whatever `how.norm` says.

    Returns:
        The number of steps taken.

    Raises:
        ValueError: If a term can't be minimised on this model, or `state_file` is given with several phases.
        Failed: If a loss or a weight is no longer finite; the message names it.
    """
    if state_file and len(phases) > 1:
        raise ValueError(f"a descent is saved in one phase, found {len(phases)}: leave out `state_file`")
    with training_mode(problem.model, how, still):
        refuse_batch_statistics(problem, how)
        refuse_compiled_shards(problem, how)
        weights = problem.params
        average = {} if how.ema is None else start_average(weights)
        train_state = TrainState(weights, (optimizer or how.optimizer_over)(list(weights.values())), average)
        count, lengths = 0, phase_lengths(problem, phases, how)
        for phase, begin, steps in zip(phases, accumulate(lengths, initial=0), lengths, strict=False):
            span = (begin, begin + steps, sum(lengths))
            count += run_phase(problem, phase, how, train_state, span=span, state_file=state_file)
        train_state.keep_average()
        refuse_nonfinite(weights)
    return count


def run_phase(
    problem: Problem,
    phase: Phase,
    how: Descent,
    train_state: TrainState,
    *,
    span: tuple[int, int, int],
    state_file: StateFile | None,
) -> int:
    """Runs one phase; returns the number of steps taken. `span` is its first step, its end and the total."""
    (begin, end, of), weights, update = span, train_state.weights, train_state.update
    runtime = make_runtime(problem, how, phase.where, compile=how.compile)
    runtime.shifts = []
    pinned = Pinned(weights, phase.where)
    before: dict[int, Params] = {}
    index = -1
    for index, (batches, sizes) in enumerate(islice(step_batches(problem, phase, how), end - begin)):
        if state_file and state_file.holds(index, problem, train_state):
            continue
        for watch in (problem.watch, phase.watch):
            if watch:
                watch(problem, index)
        set_rate(update, how, (begin + index) / of)
        runtime.noise = problem.seed() if how.dropout == "same" else None
        step = Step(weights, runtime, batches, sizes, index=index, of=end - begin, before=before)
        direction = combined_direction(step, phase, problem.generator)
        for name, p in weights.items():
            p.grad = direction.get(name)
        if how.max_norm is not None and direction:
            clip(direction, how.max_norm)
        update.step()
        pinned.restore(update)
        train_state.follow_average(how.ema, begin + index)
        before = {key: step.memory[key][1] for key in runtime.carried if key in step.memory}
        if index % CHECK == CHECK - 1:
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


def combined_direction(step: Step, phase: Phase, generator: torch.Generator) -> Params:
    """Combines the gradients of the terms that have data at this step; empty if none has."""
    present = [term for term in phase.terms if term.present(step)]
    if not present:
        return {}
    # the last term first: an exact lookahead builds the graph of the first on its way, and keeps the gradient
    gradients = [step.gradient(term) for term in reversed(present)][::-1]
    if step.index == 0 and not phase.idle:
        refuse_zero(gradients)
    if phase.rule == "total":
        return sum_gradients(gradients, copy=bool(step.runtime.carried or step.runtime.reused))
    rule = phase.rule if callable(phase.rule) else RULES[phase.rule]
    return combine(gradients, rule(gramian(gradients), generator))


def refuse_zero(gradients: list[Params]) -> None:
    """Raises if a gradient is zero: a student equal to its teacher, or a loss capped everywhere."""
    for number, gradient in enumerate(gradients, start=1):
        if not names_where(gradient, Tensor.bool):
            raise ValueError(
                f"the gradient of term {number} of {len(gradients)} is zero in every weight: nothing would "
                "be learned from it; start elsewhere, or choose another loss"
            )


def sum_gradients(gradients: list[Params], *, copy: bool) -> Params:
    """Sums the gradients; `copy` clones a single one, because clipping must not change what is reused."""
    total = pieces(gradients[0].values())
    if copy and len(gradients) == 1:
        total = [g.clone() for g in total]
    for gradient in gradients[1:]:
        total = torch._foreach_add(total, pieces(gradient.values()))
    return rebuild(gradients[0], total)


def phase_lengths(problem: Problem, phases: Sequence[Phase], how: Descent) -> list[int]:
    """The number of steps of each phase; they add up to `how.steps`, if that is given.

    Raises:
        ValueError: If a phase gets none.
    """
    whole = sum(phase.share for phase in phases)
    if how.epochs is not None:
        epochs = [steps_per_epoch(phase.feed, *plan_inputs(problem, phase, how)) for phase in phases]
        return [
            max(1, round(phase.share / whole * how.epochs * n))
            for phase, n in zip(phases, epochs, strict=True)
        ]
    ends = [round((how.steps or 0) * share / whole) for share in accumulate(phase.share for phase in phases)]
    lengths = [end - begin for begin, end in pairwise([0, *ends])]
    if 0 in lengths:
        raise ValueError(
            f"{how.steps} steps are too few for {len(phases)} phases: phase {1 + lengths.index(0)} gets none"
        )
    return lengths


def plan_inputs(problem: Problem, phase: Phase, how: Descent) -> tuple[dict[Part, Tensor], dict[Part, int]]:
    """The positions and batch sizes of the parts of the data that a phase needs, forget set first."""
    part_names = frozenset().union(*(term.parts for term in phase.terms))
    parts: list[Part] = [part for part in ("forget", "retain", "mixed", "calibration") if part in part_names]
    ids: dict[Part, Tensor] = {part: problem.split.part(part)[1] for part in parts}
    return ids, {part: how.forget_batch or how.batch if part == "forget" else how.batch for part in parts}


def step_batches(
    problem: Problem, phase: Phase, how: Descent
) -> Iterator[tuple[dict[Part, list[Batch]], dict[Part, int]]]:
    """Yields this process's micro-batches of each step by part, and the size of the whole batch by part."""
    ids, sizes = plan_inputs(problem, phase, how)
    # a generator of its own: a DataLoader reads ahead, and a rule may draw in between
    order = torch.Generator().manual_seed(problem.seed())
    plans, *copies = tee(FEEDS[phase.feed](ids, sizes, order), 1 + len(ids))
    streams = {part: draw_batches(problem, part, copy, how) for part, copy in zip(ids, copies, strict=True)}
    for plan in plans:
        yield {part: next(streams[part]) for part in plan}, {part: len(rows) for part, rows in plan.items()}


def draw_batches(problem: Problem, part: Part, plans: Iterator[Plan], how: Descent) -> Iterator[list[Batch]]:
    """Yields this process's micro-batches of one part, step by step.

    A batch is read and drawn whole and then cut, so the draws depend on neither micro-batches nor processes.
    """
    source, _ = problem.split.part(part)
    key = torch.Generator().manual_seed(problem.seed())
    augment = torch.Generator().manual_seed(problem.seed())
    wholes, reads = tee(plan[part] for plan in plans if part in plan)
    raws = source.stream(map(problem.processes.rows_to_read, reads), generator=augment)
    for whole, raw in zip(wholes, raws, strict=False):
        batch = mark_forget_rows(problem, part, problem.task.draw(raw, key))
        yield problem.processes.micro_batches(whole, batch, how.micro_batch)


def mark_forget_rows(problem: Problem, part: Part, batch: Batch) -> Batch:
    """Marks the forget rows of a mixed batch; any other batch is returned unchanged."""
    if part != "mixed":
        return batch
    forget = problem.split.is_forget[batch.ids.cpu()].to(batch.target.device)
    return replace(batch, forget=forget)


@contextmanager
def training_mode(model: nn.Module, how: Descent, still: Collection[nn.Module] = ()) -> Iterator[None]:
    """Training mode with the norm and dropout settings of `how`; restores the mode of every module."""
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
        raise ValueError(
            "norm='train' normalises by the shard of a process, so several would not equal one: "
            "use norm='frozen'"
        )
    if problem.processes.count > 1 and any(m.running_mean is None for m in norms):
        raise ValueError(
            "a BatchNorm without running statistics normalises by the shard of a process, so several would "
            "not equal one: use one process"
        )


def refuse_compiled_shards(problem: Problem, how: Descent) -> None:
    """Raises if the passes of a sharded model are to be compiled."""
    if problem.processes.sharded and how.compile:
        raise ValueError("the passes of a sharded model are not compiled yet: set compile = false")


def set_rate(update: torch.optim.Optimizer, how: Descent, progress: float) -> None:
    """Sets the learning rate of every parameter group, relative to its initial one."""
    for group in update.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * how.rate(progress)

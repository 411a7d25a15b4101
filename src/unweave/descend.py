"""The one training loop."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, tee
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from unweave.feed import FEEDS, FeedName, Plan, steps_per_epoch
from unweave.importance import Mask, evaluating
from unweave.params import Params, combine, gramian
from unweave.problem import Failed, Part, Problem
from unweave.rules import RULES, RuleName
from unweave.step import Precision, Runtime, Step, Term
from unweave.tasks import Batch, call

CHECK = 50
"""Losses are read from the device and checked every so many steps."""

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Descent:
    """How far and how fast to move.

    Args:
        lr: The learning rate.
        steps: The number of updates; instead of `epochs`.
        epochs: The number of passes, as the feed counts them; instead of `steps`.
        batch: The number of retain (or mixed) examples per step, over all processes.
        forget_batch: The number of forget examples per step; `batch` if None.
        micro_batch: The largest number of examples in one forward pass; no limit if None.
        optimizer: The optimizer; `descend` takes a user's own instead.
        momentum: The momentum of SGD.
        weight_decay: The weight decay.
        schedule: How the learning rate falls, after the warm-up.
        warmup: The fraction of steps over which it first rises, linearly.
        max_norm: The largest norm of the combined gradient, if any.
        norm: BatchNorm normalises by the batch and updates its statistics ("train"), or uses them as they are ("frozen").
        dropout: Dropout layers are switched off, or draw one mask for all passes of a step ("same").
        ema: The decay of an average of the weights, which becomes the result; none if None.
        precision: The type of the forward passes.
        stop: "forgotten" ends the descent once the mean loss on the forget part has reached that on the calibration part.
        stop_every: How many steps lie between two looks at that.
        unused: Names of weights that may take no part in the loss.
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
    stop: Literal["never", "forgotten"] = "never"
    stop_every: int = 10
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"a descent needs either steps or epochs, found steps={self.steps}, epochs={self.epochs}")
        for name in ("lr", "steps", "epochs", "batch", "forget_batch", "micro_batch", "max_norm", "stop_every"):
            value = {n: v for n, v in vars(self).items() if n == name}[name]
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, found {value}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), found {self.warmup}")

    def rate(self, progress: float) -> float:
        """The learning rate at a progress in [0, 1), relative to `lr`."""
        if progress < self.warmup:
            return progress / self.warmup
        rest = (progress - self.warmup) / (1 - self.warmup)
        return {"constant": 1.0, "linear": 1 - rest, "cosine": (1 + math.cos(math.pi * rest)) / 2}[self.schedule]

    def optimizer_over(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer over these weights."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(weights, self.lr, self.momentum, weight_decay=self.weight_decay, foreach=True)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(weights, self.lr, weight_decay=self.weight_decay, foreach=True)


@dataclass(frozen=True)
class Phase:
    """A stretch of a descent.

    Args:
        terms: One gradient is taken per term; a sum of objectives is one term.
        rule: How gradients that disagree become one direction.
        where: A multiplier in [0, 1] per weight; weights at zero end bit for bit where they began.
        feed: The order in which data arrives.
        share: The fraction of the steps, relative to the other phases.
        watch: Called before every step with the problem and the number of the step, for probes.
    """

    terms: Sequence[Term]
    rule: RuleName = "total"
    where: Mask | None = None
    feed: FeedName = "paired"
    share: float = 1.0
    watch: Callable[[Problem, int], None] | None = None


def descend(problem: Problem, how: Descent, *phases: Phase, optimizer: OptimizerFactory | None = None) -> int:
    """Follows the terms of each phase downhill over `problem.model`, in place, under one optimizer.

    Args:
        problem: What to edit.
        how: The optimizer and its length.
        phases: What to follow, one after the other.
        optimizer: A user's own optimizer, instead of the one that `how` names.

    Returns:
        The number of steps taken.

    Raises:
        ValueError: If a term can't be followed on this model.
        Failed: If a loss or a weight is no longer finite; names the term.
    """
    with training(problem.model, how):
        refuse_batch_statistics(problem, how)
        weights = problem.params
        update = (optimizer or how.optimizer_over)(list(weights.values()))
        average = {name: p.detach().clone() for name, p in weights.items()} if how.ema is not None else {}
        taken = 0
        for phase in phases:
            taken += follow(problem, phase, how, weights, update, average, share=phase.share / sum(p.share for p in phases))
        with torch.no_grad():
            for name, mean in average.items():
                weights[name].copy_(mean)
        update.zero_grad(set_to_none=True)
        refuse_nonfinite(weights)
    return taken


def follow(
    problem: Problem,
    phase: Phase,
    how: Descent,
    weights: dict[str, nn.Parameter],
    update: torch.optim.Optimizer,
    average: dict[str, Tensor],
    *,
    share: float,
) -> int:
    """One phase; returns the number of steps taken."""
    steps = length(problem, phase, how, share)
    runtime = Runtime(problem.model, problem.task, how.precision, problem.processes, problem.cost, phase.where, frozenset(how.unused))
    pinned = Pinned(weights, phase.where)
    before: dict[int, Params] = {}
    index = -1
    for index, (batches, sizes) in enumerate(islice(batches_of(problem, phase, how), steps)):
        if phase.watch:
            phase.watch(problem, index)
        set_rate(update, how, index / steps)
        step = Step(weights, runtime, batches, sizes, index=index, of=steps, before=before)
        with same_noise(problem, how):
            direction = directed(step, phase, problem.generator)
        for name, p in weights.items():
            p.grad = direction[name]
        if how.max_norm is not None:
            nn.utils.clip_grad_norm_(list(weights.values()), how.max_norm, foreach=True)
        update.step()
        pinned.restore(update)
        follow_average(average, weights, how.ema)
        before = {key: step.memory[key][1] for key in runtime.carried if key in step.memory}
        if index % CHECK == CHECK - 1:
            collect(problem, runtime)
        if how.stop == "forgotten" and (index + 1) % how.stop_every == 0 and forgotten(problem, how):
            break
    collect(problem, runtime)
    return index + 1


def directed(step: Step, phase: Phase, generator: torch.Generator) -> Params:
    """The direction that the rule makes of the gradients of the terms that are present."""
    present = [term for term in phase.terms if term.present(step)]
    # the last term first: an exact lookahead builds the graph of the first on its way, and deposits the gradient
    gradients = [step.gradient(term) for term in reversed(present)][::-1]
    if phase.rule == "total":
        return summed(gradients, copy=bool(step.runtime.carried))
    return combine(gradients, RULES[phase.rule](gramian(gradients), generator))


def summed(gradients: list[Params], *, copy: bool) -> Params:
    """The sum; of a single gradient itself, or a copy where the clip must not change what a later step reads."""
    total = [g.clone() for g in gradients[0].values()] if copy and len(gradients) == 1 else list(gradients[0].values())
    for gradient in gradients[1:]:
        total = torch._foreach_add(total, list(gradient.values()))
    return dict(zip(gradients[0], total, strict=True))


def length(problem: Problem, phase: Phase, how: Descent, share: float) -> int:
    """The number of steps of a phase."""
    if how.steps is not None:
        return max(1, round(how.steps * share))
    ids, sizes = plan_inputs(problem, phase, how)
    return max(1, round(share * (how.epochs or 0) * steps_per_epoch(phase.feed, ids, sizes)))


def plan_inputs(problem: Problem, phase: Phase, how: Descent) -> tuple[dict[Part, Tensor], dict[Part, int]]:
    """The positions and batch sizes of the parts that the terms of a phase need, forget first."""
    needed = frozenset().union(*(term.parts for term in phase.terms))
    parts: list[Part] = [part for part in ("forget", "retain", "mixed", "calibration") if part in needed]
    ids = {part: problem.split.part(part)[1] for part in parts}
    return ids, {part: how.forget_batch or how.batch if part == "forget" else how.batch for part in parts}


def batches_of(problem: Problem, phase: Phase, how: Descent) -> Iterator[tuple[dict[Part, list[Batch]], dict[Part, int]]]:
    """This process's micro-batches of each step by part, and the number of examples of the whole step."""
    ids, sizes = plan_inputs(problem, phase, how)
    plans, *copies = tee(FEEDS[phase.feed](ids, sizes, problem.generator), 1 + len(ids))
    streams = {part: drawn(problem, part, copy, how) for part, copy in zip(ids, copies, strict=True)}
    for plan in plans:
        yield {part: next(streams[part]) for part in plan}, {part: len(rows) for part, rows in plan.items()}


def drawn(problem: Problem, part: Part, plans: Iterator[Plan], how: Descent) -> Iterator[list[Batch]]:
    """The micro-batches of one part, step by step."""
    source, _ = problem.split.part(part)
    key = torch.Generator().manual_seed(problem.seed())  # a DataLoader reads ahead: parts must not share a generator
    augment = torch.Generator().manual_seed(problem.seed())
    ours, counts = tee(problem.processes.shard(plan[part]) for plan in plans if part in plan)
    micro = (rows for ids in ours for rows in ids.split(how.micro_batch or len(ids)))
    batches = (mark(problem, part, problem.task.draw(raw, key)) for raw in source.stream(micro, generator=augment))
    for ids in counts:
        yield list(islice(batches, math.ceil(len(ids) / (how.micro_batch or len(ids)))))


def mark(problem: Problem, part: Part, batch: Batch) -> Batch:
    """The batch, with its forget rows marked if it is mixed."""
    if part != "mixed":
        return batch
    forget = problem.split.is_forget[batch.ids.cpu()].to(batch.target.device)
    return Batch(batch.ids, batch.inputs, batch.target, batch.other, forget)


@contextmanager
def training(model: nn.Module, how: Descent) -> Iterator[None]:
    """Training mode under the norm and dropout policy; every module gets its own mode back."""
    with evaluating(model):
        model.train()
        for module in model.modules():
            frozen_norm = isinstance(module, _BatchNorm) and how.norm == "frozen"
            no_dropout = isinstance(module, _DropoutNd | nn.MultiheadAttention | nn.RNNBase) and how.dropout == "off"
            if frozen_norm or no_dropout:
                module.training = False
        yield


@contextmanager
def same_noise(problem: Problem, how: Descent) -> Iterator[None]:
    """The global generator of the step's passes, seeded; the caller's own is left as it was."""
    if how.dropout == "off":
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(problem.seed())
        yield


def refuse_batch_statistics(problem: Problem, how: Descent) -> None:
    """Raises where several processes would normalise by their own shards."""
    shared = problem.processes.count > 1 and how.norm == "train"
    if shared and any(isinstance(module, _BatchNorm) for module in problem.model.modules()):
        raise ValueError("norm='train' normalises by the shard of a process, so several would not equal one: use norm='frozen'")


def set_rate(update: torch.optim.Optimizer, how: Descent, progress: float) -> None:
    """Sets the learning rate of every group to its share of its first one."""
    for group in update.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * how.rate(progress)


def follow_average(average: dict[str, Tensor], weights: Mapping[str, Tensor], decay: float | None) -> None:
    """Moves the average towards the weights."""
    if decay is not None:
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in weights.values()], 1 - decay)


class Pinned:
    """Weights that must end where they began: momentum and weight decay also move what has no gradient.

    Args:
        weights: All weights.
        where: The multiplier; weights at zero are pinned.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], where: Mask | None) -> None:
        masks = {} if where is None else {name: where[name] == 0 for name in weights}
        self.held = [(weights[name], mask, weights[name].detach().clone()) for name, mask in masks.items() if bool(mask.any())]

    @torch.no_grad()
    def restore(self, update: torch.optim.Optimizer) -> None:
        """Puts the pinned weights back, and zeroes their optimizer state."""
        for p, mask, start in self.held:
            p.copy_(torch.where(mask, start, p))
            for state in update.state[p].values():
                if isinstance(state, Tensor) and state.shape == p.shape:
                    state.masked_fill_(mask, 0)


def collect(problem: Problem, runtime: Runtime) -> None:
    """Moves the losses from the device to the curves.

    Raises:
        Failed: If one is not finite.
    """
    if not runtime.losses:
        return
    values = torch.stack([loss.float() for _, loss in runtime.losses]).tolist()
    for (name, _), value in zip(runtime.losses, values, strict=True):
        if not math.isfinite(value):
            raise Failed(f"the loss {name} became {value}: the learning rate or the forget loss is too strong")
        problem.curves.setdefault(name, []).append(value)
    runtime.losses.clear()


def refuse_nonfinite(weights: Mapping[str, Tensor]) -> None:
    """Raises if a weight is NaN or infinite."""
    for name, p in weights.items():
        if not bool(torch.isfinite(p).all()):
            raise Failed(f"the weights {name} are no longer finite: the learning rate or the forget loss is too strong")


@torch.no_grad()
def forgotten(problem: Problem, how: Descent) -> bool:
    """Whether the mean loss on the forget part has reached that on the calibration part."""
    with evaluating(problem.model):
        return mean_loss(problem, "forget", how.batch) >= mean_loss(problem, "calibration", how.batch)


def mean_loss(problem: Problem, part: Part, batch: int) -> float:
    """The mean loss on a part."""
    source, ids = problem.split.part(part)
    total = 0.0
    for raw in source.stream(ids.split(batch)):
        drawn = problem.task.draw(raw, torch.Generator().manual_seed(0))
        total += float(problem.task.loss(call(problem.model, drawn.inputs), drawn.target).sum())
        problem.cost.examples += len(drawn)
    return total / len(ids)

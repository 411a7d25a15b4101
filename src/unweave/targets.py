"""Estimates of what a retrained model would say of the forget data.

An estimate never reads the original model's answer on a forget example, save for ranks
where asked to, because that answer leaks what should be forgotten.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.data import Source
from unweave.descend import Descent, Phase, descend
from unweave.edit import restart, shrink
from unweave.importance import evaluating
from unweave.objective import Objective, frozen, nll, on
from unweave.problem import Problem
from unweave.split import Part
from unweave.step import Step
from unweave.tasks import Batch, call
from unweave.tasks.classifier import Classifier, margin
from unweave.trim import trim


@dataclass(frozen=True)
class Proxy:
    """A model that stands for the retrained one: it is trained on retain data for a fraction of retraining.

    Args:
        start: Fresh weights, all weights of the original scaled by `amount`, or the original with the
            fraction `amount` that is most sensitive to forget data redrawn. A warm start leaks where labels
            are noisy.
        amount: See `start`.
        how: The training.
    """

    start: Literal["scratch", "shrunk", "reinitialized"] = "scratch"
    amount: float = 0.4
    how: Descent = Descent(lr=0.1, epochs=3, schedule="cosine", warmup=0.15, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, 1]", "amount")

    def __call__(self, problem: Problem) -> nn.Module:
        """The frozen proxy; made once for all methods that share the problem's memory, charged to each."""
        return problem.remember(repr(self), self.train)

    def train(self, problem: Problem) -> nn.Module:
        """Trains the problem's own model, and returns a frozen copy."""
        match self.start:
            case "scratch":
                restart(problem)
            case "shrunk":
                shrink(problem, self.amount)
            case "reinitialized":
                trim(problem, self.amount, eligible="")
        descend(problem, self.how, Phase([nll("retain")]))
        return frozen(problem.model)


@dataclass(frozen=True)
class Said:
    """Logits for the forget part and for the calibration part, by somebody who saw neither.

    Args:
        forget: In the order of the part.
        held: For the calibration part.
    """

    forget: Float[Tensor, "forget class"]
    held: Float[Tensor, "held class"]

    @classmethod
    def of(cls, problem: Problem, model: nn.Module) -> "Said":
        """What a model says."""
        return cls(logits(problem, model, "forget"), logits(problem, model, "calibration"))


def held_out_level(problem: Problem, proxy: nn.Module) -> Float[Tensor, "n class"]:
    """The proxy's logits for the forget part, at the confidence that the original has on held-out data.

    A short training is less sure, and surer of the wrong things, than a full one. So for each example the
    logit of the class that the proxy chooses is moved until its margin is the one that the original gives the
    proxy's choice on the calibration part, at the same rank among the proxy's margins. There the original is
    as much a stranger as a retrained model is on the forget part, save on classes that are wholly forgotten:
    they are left out. No other label is read.

    Args:
        problem: Whose model is still the original.
        proxy: A model that never saw the forget data.

    Raises:
        ValueError: If the calibration part holds nothing else.
    """
    return spread(problem, at_level(problem, Said.of(problem, proxy)))


@torch.no_grad()
def at_level(problem: Problem, said: Said) -> Float[Tensor, "forget class"]:
    """The same of tables: what is said of forget examples, at the level of what is said of held-out data."""
    strangers = known(problem)
    if not bool(strangers.any()):
        raise ValueError(
            "a held-out level needs calibration examples of classes that are not wholly forgotten, found "
            "none: pass sharpen= to 'match'"
        )
    held = said.held[strangers]
    choice, held_choice = said.forget.argmax(1), held.argmax(1)
    level = margin(logits(problem, problem.model, "calibration")[strangers], held_choice).sort().values
    order = margin(held, held_choice).sort().values
    own = margin(said.forget, choice)
    wanted = level.quantile(torch.searchsorted(order, own).clamp(0.5, len(order) - 0.5) / len(order))
    return said.forget.scatter_add(1, choice[:, None], (wanted - own)[:, None])


def spread(problem: Problem, rows: Float[Tensor, "forget class"]) -> Float[Tensor, "n class"]:
    """Rows for the forget part as a table with one row per training example; zero for others."""
    return rows.new_zeros(len(problem.split.train), rows.shape[1]).index_copy_(0, problem.split.forget, rows)


def toward(table: Float[Tensor, "n class"]) -> Objective:
    """The task's divergence from a table of logits, one row per training example."""

    def value(step: Step, batch: Batch) -> Tensor:
        says = step.once(("table", id(batch)), lambda: table[batch.ids.cpu()].to(batch.target.device))
        return step.runtime.task.divergence(step.predict(batch), says)

    return on("forget", "match", value)


def quantiles(problem: Problem, ranks: nn.Module) -> Float[Tensor, " n"]:
    """For each forget example the margin of held-out data at its own rank, in nats; zero for others.

    The margins are those of the original on the calibration part. A proxy ranks apart the examples where it
    agrees and where it disagrees with the label; the original has seen the labels, and ranks all together. On
    a class that is wholly forgotten the original is no stranger: its examples are taken by themselves, at the
    proxy's own margins.

    Args:
        problem: Whose model is still the original.
        ranks: The model whose margins order the examples: a proxy that never saw them, or `problem.model`
            itself.

    Raises:
        ValueError: If the task is no classification, or if nothing is held out that the examples could be
            ranked with.
    """
    if not isinstance(problem.task, Classifier):
        raise ValueError(
            f"quantile targets are margins of a classifier, found the task {type(problem.task).__name__}: "
            "use 'match'"
        )
    proxied, split = ranks is not problem.model, problem.split
    if split.forgotten_classes and not proxied:
        raise ValueError(
            f"the original knows the forgotten classes {split.forgotten_classes}, so its ranks say nothing: "
            "use ranks='proxy'"
        )
    order, held_order = margins(problem, ranks, "forget"), margins(problem, ranks, "calibration")
    level = margins(problem, problem.model, "calibration") if proxied else held_order
    lost = torch.isin(split.train.labels[split.forget], gone(problem))
    held_lost = ~known(problem)
    found = torch.empty_like(order)
    for here, there, margin_there in ((~lost, ~held_lost, level), (lost, held_lost, held_order)):
        if bool(here.any()):
            found[here] = matched(order[here], held_order[there], margin_there[there], stratified=proxied)
    return found.new_zeros(len(split.train)).index_copy_(0, split.forget, found)


def matched(
    order: Float[Tensor, " n"],
    held_order: Float[Tensor, " m"],
    level: Float[Tensor, " m"],
    *,
    stratified: bool,
) -> Float[Tensor, " n"]:
    """The held-out level at each value's rank, positive and negative apart if both have a counterpart."""
    if not len(level):
        raise ValueError(
            "quantile targets need calibration examples of the kind that is forgotten, found none: "
            "use 'match'"
        )
    strata = [(order > 0, held_order > 0), (order <= 0, held_order <= 0)] if stratified else []
    if not strata or any(bool(here.any()) and not bool(there.any()) for here, there in strata):
        return at_ranks(order, level)
    found = torch.empty_like(order)
    for here, there in strata:
        if bool(here.any()):
            found[here] = at_ranks(order[here], level[there])
    return found


def at_ranks(order: Float[Tensor, " n"], pool: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """The quantile of the pool at each value's own mid-rank."""
    rank = (order.argsort(stable=True).argsort() + 0.5) / len(order)
    return pool.quantile(rank.to(pool.dtype))


def gone(problem: Problem) -> Tensor:
    """The classes that are wholly forgotten."""
    return torch.tensor(problem.split.forgotten_classes, dtype=torch.long)


def known(problem: Problem) -> Bool[Tensor, " held"]:
    """Which calibration examples are of a class of which something is retained."""
    return ~torch.isin(problem.split.held_out.labels[problem.split.calibration], gone(problem))


def pull(targets: Float[Tensor, " n"]) -> Objective:
    """Huber's loss between each forget margin and its target margin, in nats.

    Args:
        targets: One margin per training example, as `quantiles` finds them.
    """

    def value(step: Step, batch: Batch) -> Tensor:
        wanted = step.once(
            ("quantile", id(batch)), lambda: targets[batch.ids.to(targets.device)].to(batch.target.device)
        )
        return F.huber_loss(margin(step.predict(batch).float(), batch.target), wanted, reduction="none")

    return on("forget", "quantile", value)


def margins(problem: Problem, model: nn.Module, part: Part) -> Float[Tensor, " n"]:
    """The true-class margins of a part, on the CPU."""
    source, ids = problem.split.part(part)
    return margin(logits(problem, model, part), source.labels[ids])


def logits(problem: Problem, model: nn.Module, part: Part) -> Float[Tensor, "n class"]:
    """The logits of a part, in evaluation mode, on the CPU; the pass is charged as examples."""
    return logits_at(problem, model, *problem.split.part(part))


@torch.no_grad()
def logits_at(
    problem: Problem, model: nn.Module, source: Source, ids: Int[Tensor, " n"], *, batch: int = 1024
) -> Float[Tensor, "n class"]:
    """The logits of those examples of a source, as `logits` takes them."""
    with evaluating(model):
        problem.cost.examples += len(ids)
        return torch.cat([call(model, raw.inputs).float().cpu() for raw in source.stream(ids.split(batch))])

"""What models answer on the forget data and on held-out data, and how sure the original is of the latter.

An estimate never reads the original model's answer on a forget example, save for ranks
where asked to, because that answer leaks what should be forgotten.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unweave.data import Source
from unweave.descent.objective import Objective, on
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch, call, evaluating
from unweave.tasks.classifier import margin
from unweave.weights.step import Step


@dataclass(frozen=True)
class ModelLogits:
    """Logits for the forget part and for the calibration part, by somebody who saw neither.

    Args:
        forget: In the order of the part.
        held: For the calibration part.
    """

    forget: Float[Tensor, "forget class"]
    held: Float[Tensor, "held class"]

    @classmethod
    def of(cls, problem: Problem, model: nn.Module) -> "ModelLogits":
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
        problem: The request.
        proxy: A model that never saw the forget data.

    Raises:
        ValueError: If the calibration part holds nothing else.
    """
    return spread(problem, shift_to_level(problem, ModelLogits.of(problem, proxy)))


@torch.no_grad()
def shift_to_level(problem: Problem, said: ModelLogits) -> Float[Tensor, "forget class"]:
    """The same of tables: what is said of forget examples, at the level of what is said of held-out data."""
    strangers = of_retained_classes(problem)
    if not bool(strangers.any()):
        raise ValueError(
            "a held-out level needs calibration examples of classes that are not wholly forgotten, found "
            "none: pass sharpen= to 'match'"
        )
    held = said.held[strangers]
    choice, held_choice = said.forget.argmax(1), held.argmax(1)
    level = margin(logits(problem, problem.original, "calibration")[strangers], held_choice).sort().values
    order = margin(held, held_choice).sort().values
    own = margin(said.forget, choice)
    wanted = level.quantile(torch.searchsorted(order, own).clamp(0.5, len(order) - 0.5) / len(order))
    return said.forget.scatter_add(1, choice[:, None], (wanted - own)[:, None])


def spread(problem: Problem, rows: Float[Tensor, "forget class"]) -> Float[Tensor, "n class"]:
    """Rows for the forget part as a table with one row per training example; zero for others."""
    return rows.new_zeros(len(problem.split.train), rows.shape[1]).index_copy_(0, problem.split.forget, rows)


def match_table(table: Float[Tensor, "n class"]) -> Objective:
    """The task's divergence from a table of logits, one row per training example."""

    def value(step: Step, batch: Batch) -> Tensor:
        says = step.once(("table", id(batch)), lambda: table[batch.ids.cpu()].to(batch.target.device))
        return step.runtime.task.divergence(step.predict(batch), says)

    return on("forget", "match", value)


def forgotten_classes(problem: Problem) -> Tensor:
    """The classes that are wholly forgotten."""
    return torch.tensor(problem.split.forgotten_classes, dtype=torch.long)


def of_retained_classes(problem: Problem) -> Bool[Tensor, " held"]:
    """Which calibration examples are of a class of which something is retained."""
    return ~torch.isin(problem.split.held_out.labels[problem.split.calibration], forgotten_classes(problem))


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

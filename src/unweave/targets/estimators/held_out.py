"""Outputs of models on the forget set and on held-out data, and the original's confidence on the latter.

An estimate never reads the original's output on a forget example, except to rank examples if a setting says
so, because that output leaks what should be forgotten.
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
    """Logits of a model on the forget set and the calibration set, neither of which it saw.

    Args:
        forget: The logits on the forget set, in its order.
        calibration: The logits on the calibration set, in its order.
    """

    forget: Float[Tensor, "forget class"]
    calibration: Float[Tensor, "held class"]

    @classmethod
    def of(cls, problem: Problem, model: nn.Module) -> "ModelLogits":
        """The logits of a model."""
        return cls(logits(problem, model, "forget"), logits(problem, model, "calibration"))


def held_out_level(problem: Problem, proxy: nn.Module) -> Float[Tensor, "n class"]:
    """The proxy's logits on the forget set, with the original's confidence on held-out data.

    A short training is less confident than a full one, and confident about other examples. So for each forget
    example the logit of the class that the proxy predicts is changed: its margin becomes the original's
    margin for the proxy's prediction on the calibration set, at the same rank among the proxy's margins. The
    calibration set is to the original what the forget set is to a retrained model, except for classes
    forgotten whole, which are left out. No label is read.

    Args:
        problem: The problem.
        proxy: A model that never saw the forget set.

    Raises:
        ValueError: If the calibration set holds only classes that are forgotten whole.
    """
    return spread(problem, shift_to_level(problem, ModelLogits.of(problem, proxy)))


@torch.no_grad()
def shift_to_level(problem: Problem, answers: ModelLogits) -> Float[Tensor, "forget class"]:
    """Gives the forget logits the confidence of the original on held-out data; see `held_out_level`."""
    strangers = of_retained_classes(problem)
    if not bool(strangers.any()):
        raise ValueError(
            "a held-out level needs calibration examples of classes that are not wholly forgotten, found "
            "none: pass sharpen= to 'match'"
        )
    calibration = answers.calibration[strangers]
    choice, held_choice = answers.forget.argmax(1), calibration.argmax(1)
    level = margin(logits(problem, problem.original, "calibration")[strangers], held_choice).sort().values
    order = margin(calibration, held_choice).sort().values
    margins = margin(answers.forget, choice)
    targets = level.quantile(torch.searchsorted(order, margins).clamp(0.5, len(order) - 0.5) / len(order))
    return answers.forget.scatter_add(1, choice[:, None], (targets - margins)[:, None])


def spread(problem: Problem, rows: Float[Tensor, "forget class"]) -> Float[Tensor, "n class"]:
    """Spreads rows of the forget set into a table with one row per training example; zero elsewhere."""
    return rows.new_zeros(len(problem.split.train), rows.shape[1]).index_copy_(0, problem.split.forget, rows)


def match_table(table: Float[Tensor, "n class"]) -> Objective:
    """The task's divergence from a table of logits, one row per training example."""

    def value(step: Step, batch: Batch) -> Tensor:
        rows = step.once(("table", id(batch)), lambda: table[batch.ids.cpu()].to(batch.target.device))
        return step.runtime.task.divergence(step.predict(batch), rows)

    return on("forget", "match", value)


def forgotten_classes(problem: Problem) -> Tensor:
    """The classes that are forgotten whole."""
    return torch.tensor(problem.split.forgotten_classes, dtype=torch.long)


def of_retained_classes(problem: Problem) -> Bool[Tensor, " held"]:
    """Which calibration examples are of a class with retained examples."""
    return ~torch.isin(problem.split.held_out.labels[problem.split.calibration], forgotten_classes(problem))


def logits(problem: Problem, model: nn.Module, part: Part) -> Float[Tensor, "n class"]:
    """The logits of a part, in evaluation mode, on the CPU; the pass is charged as examples."""
    return logits_at(problem, model, *problem.split.part(part))


@torch.no_grad()
def logits_at(
    problem: Problem, model: nn.Module, source: Source, ids: Int[Tensor, " n"], *, batch: int = 1024
) -> Float[Tensor, "n class"]:
    """The logits of some examples of a source; see `logits`."""
    with evaluating(model):
        problem.cost.examples += len(ids)
        return torch.cat([call(model, raw.inputs).float().cpu() for raw in source.stream(ids.split(batch))])

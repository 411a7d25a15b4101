"""The objectives that methods combine: the training loss, forget losses, distillation, penalties.

Where a formula has no mean, the value is per example and the mean over the part is taken by the step.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from unweave.descent.weighted_sum import Objective, OnWeights, on
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch, Inputs, Surrogates, call
from unweave.weights.params import Params
from unweave.weights.sharded import add_up, local_rows, local_with_gradient
from unweave.weights.step import Step

__all__ = [
    "Objective",
    "bounded",
    "clamped",
    "distill",
    "ewc",
    "l1",
    "mislabel",
    "nll",
    "on",
    "surrogate",
    "uniform",
]

RetainLoss = Literal["nll", "distill", "both"]
"""What the retain loss compares with: the labels, the original model, or both."""


def nll(part: Part) -> Objective:
    """The training loss; its negation is gradient ascent."""
    return on(part, "nll", lambda step, batch: step.runtime.task.loss(step.predict(batch), batch.target))


def mislabel(part: Part = "forget", *, teacher: nn.Module | Literal["student"] | None = None) -> Objective:
    """The training loss against a wrong target; on mixed data only forget examples get a wrong target.

    Args:
        part: The part.
        teacher: The frozen model that gives the wrong target, for families that need one; classifiers do not.
            "student" uses the model in training, dropout included, as SalUn's released code for diffusion
            does. That target changes with the weights, so the loss is no gradient field and a lookahead of it
            raises.
    """
    if isinstance(teacher, nn.Module):
        refuse_trainable(teacher)

    def value(step: Step, batch: Batch) -> Tensor:
        answering_model = step.runtime.model if isinstance(teacher, str) else teacher

        def answer(inputs: Inputs) -> Tensor:
            if answering_model is None:
                raise ValueError(
                    "this task's wrong targets are a model's answers: pass teacher=frozen_copy(model)"
                )
            with torch.no_grad(), step.runtime.keep_statistics():
                return call(answering_model, inputs)

        wrong_target = step.once(
            ("mislabel", id(answering_model), id(batch)), lambda: step.runtime.task.mislabel(batch, answer)
        )
        return step.runtime.task.loss(step.predict(batch), mix_targets(batch, wrong_target))

    return on(part, "mislabel", value, follows_weights=teacher == "student")


def mix_targets(batch: Batch, wrong_target: Tensor) -> Tensor:
    """The wrong targets; in a mixed batch, on forget examples only."""
    if batch.forget is None:
        return wrong_target
    rows = batch.forget.view(-1, *[1] * (wrong_target.ndim - 1))
    return torch.where(rows, wrong_target, batch.target)


def bounded(part: Part = "forget") -> Objective:
    r""":math:`-\log(1 + \ell)`: ascent that weakens as the loss :math:`\ell` grows."""
    return on(
        part,
        "bounded",
        lambda step, batch: -step.runtime.task.loss(step.predict(batch), batch.target).log1p(),
    )


def clamped(part: Part = "forget", *, cap: float) -> Objective:
    r""":math:`-\min(\ell, cap)`: ascent that stops for an example once its loss has reached the cap."""
    return on(
        part,
        "clamped",
        lambda step, batch: -step.runtime.task.loss(step.predict(batch), batch.target).clamp(max=cap),
    )


def uniform(part: Part = "forget") -> Objective:
    """Cross-entropy to the uniform distribution over classes, in nats. Classifiers only."""

    def value(step: Step, batch: Batch) -> Tensor:
        logits = step.predict(batch)
        if logits.ndim != 2:
            raise ValueError(
                f"the uniform loss needs logits of shape [batch, class], found {list(logits.shape)}: "
                "use another forget loss"
            )
        return -logits.log_softmax(-1).mean(-1)

    return on(part, "uniform", value)


def surrogate() -> Objective:
    """The training loss on surrogate examples that the task draws for the forget labels; no classifiers."""

    def value(step: Step, batch: Batch) -> Tensor:
        task = step.runtime.task
        if not isinstance(task, Surrogates):
            raise ValueError(
                f"the surrogate loss needs other data under the same labels, and the task "
                f"{type(task).__name__} draws none: use another forget loss"
            )
        surrogate_batch = step.once(("surrogate", id(batch)), lambda: task.surrogate(batch))
        return task.loss(step.predict(surrogate_batch), surrogate_batch.target)

    return on("forget", "surrogate", value)


def distill(teacher: nn.Module, part: Part, *, temperature: float = 1.0) -> Objective:
    """The task's divergence from a frozen teacher, whose outputs are divided by the temperature.

    The teacher must be frozen: the gradient towards a target that changes with the weights is no gradient
    field, and a lookahead through it would be the gradient of nothing.
    """
    refuse_trainable(teacher)

    def value(step: Step, batch: Batch) -> Tensor:
        teacher_output = step.once(
            ("distill", id(teacher), temperature, id(batch)), lambda: reference(teacher, batch) / temperature
        )
        return step.runtime.task.divergence(step.predict(batch), teacher_output)

    return on(part, "distill", value, idle=True)  # zero at the first step if the teacher is the original


def refuse_trainable(teacher: nn.Module) -> None:
    """Raises if the teacher has trainable weights."""
    if any(p.requires_grad for p in teacher.parameters()):
        raise ValueError(
            "a teacher must not move, and this one has trainable weights: pass frozen_copy(model)"
        )


@torch.no_grad()
def reference(teacher: nn.Module, batch: Batch) -> Tensor:
    """The output of a frozen model on a batch."""
    return call(teacher, batch.inputs)


def l1(strength: Callable[[float], float]) -> Objective:
    r""":math:`\gamma \|\theta\|_1` with :math:`\gamma` a function of the progress in [0, 1)."""

    def value(step: Step) -> Tensor:
        sums = [local_with_gradient(p).abs().sum() for p in step.params.values()]
        return strength(step.index / step.of) * add_up(step.params.values(), sums)

    return Objective(((1.0, OnWeights("l1", value, follows_progress=True)),))


def ewc(anchor: Params, importance: Params) -> Objective:
    r""":math:`\sum_j F_j (\theta_j - \theta^*_j)^2`, the elastic pull of Kirkpatrick et al. (2017)."""

    def value(step: Step) -> Tensor:
        pulls = [
            (
                local_rows(importance[name]) * (local_with_gradient(p) - local_rows(anchor[name])).square()
            ).sum()
            for name, p in step.params.items()
        ]
        return add_up(step.params.values(), pulls)

    return Objective(((1.0, OnWeights("ewc", value)),))


def retain_loss(name: RetainLoss, problem: Problem) -> Objective:
    """The retain loss of that name on the retain part."""
    match name:
        case "nll":
            return nll("retain")
        case "distill":
            return distill(problem.original, "retain")
        case "both":
            return nll("retain") + distill(problem.original, "retain")

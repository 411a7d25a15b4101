"""Trains several models of one architecture as one: every tensor of weights has a first axis of models.

Each model has its own weights, examples and order of the data, those of `train.train_model` with its seed.
The forward pass is `torch.vmap` of `functional_call`. The loss is the sum of the models' losses, so each
model gets the gradient of its own. SGD and Adam work weight by weight, so one optimizer over the stacked
weights is as many optimizers. The result equals that of training alone up to rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from unweave.data import Raw
from unweave.descent.batches import plan_inputs
from unweave.descent.descend import LOSS_CHECK, Descent, Phase, phase_lengths, set_rate, training_mode
from unweave.descent.feed import FEEDS
from unweave.descent.losses import refuse_nonfinite
from unweave.descent.objective import nll
from unweave.descent.optimizer_state import TrainState, start_average
from unweave.errors import Failed
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Inputs

Stack = dict[str, nn.Parameter]
"""The weights of all models by name, each with shape [model, ...]."""

LARGEST_BLOCK = 31 << 20
"""Bytes: just below glibc's DEFAULT_MMAP_THRESHOLD_MAX."""


def descend_together(problems: Sequence[Problem], how: Descent, part: Part) -> None:
    """Trains the models of the problems on a part of their data, in place.

    Args:
        problems: Of one architecture, one source and parts of one size; see `limits.why_alone` for what else
            they must meet.
        how: The training.
        part: The part to train on.

    Raises:
        Failed: If a loss or a weight is no longer finite.
        ValueError: If some weights take no part in the loss.
    """
    keep_freed_memory()
    first, models = problems[0], [problem.model for problem in problems]
    phase = Phase([nll(part)])
    (steps,) = phase_lengths(first, [phase], how)
    source, _ = first.split.part(part)
    with training_mode(models[0], how):
        weights, fixed_state = stack_weights(models), stack_fixed(models)
        predict = stacked_forward(models[0])
        average = {} if how.ema is None else start_average(weights)
        state = TrainState(weights, how.optimizer_over(list(weights.values())), average)
        plans = [islice(order_of(problem, how, part), steps) for problem in problems]
        examples = 0
        for index, rows in enumerate(zip(*plans, strict=True)):
            examples += len(rows[0])
            set_rate(state.update, how, index / steps)
            (raw,) = source.stream([torch.cat(rows)])
            state.update.zero_grad()
            losses = batch_losses(first, predict, {**weights, **fixed_state}, raw, len(models))
            losses.sum().backward()
            complete_gradients(weights, frozenset(how.unused))
            if how.max_norm is not None:
                clip_each(weights, how.max_norm)
            state.update.step()
            state.follow_average(how.ema, index)
            if index % LOSS_CHECK == LOSS_CHECK - 1:
                refuse_infinite_losses(losses)
        state.keep_average()
    refuse_nonfinite(weights)
    unstack(weights, models)
    for problem in problems:
        problem.cost.gradients += steps
        problem.cost.examples += examples


def keep_freed_memory() -> None:
    """Makes glibc keep freed blocks of up to 31 MiB for the next step; other allocators ignore it.

    The activations of many models are so large that glibc returns them to the system after every step, and
    pages them in anew. The largest block that the process ever freed sets the limit.
    """
    torch.empty(LARGEST_BLOCK, dtype=torch.uint8, device="cpu")


def order_of(problem: Problem, how: Descent, part: Part) -> Iterator[Tensor]:
    """Yields the positions of each batch, in the order of `descend` from the problem's generator."""
    ids, sizes = plan_inputs(problem, Phase([nll(part)]), how)
    order = torch.Generator().manual_seed(problem.seed())
    for plan in FEEDS["paired"](ids, sizes, order):
        yield plan[part]


def stack_weights(models: Sequence[nn.Module]) -> Stack:
    """The trainable weights of all models, as parameters of their own."""
    names = [name for name, p in models[0].named_parameters() if p.requires_grad]
    states = [dict(model.named_parameters()) for model in models]
    return {name: nn.Parameter(torch.stack([state[name].detach() for state in states])) for name in names}


def stack_fixed(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The frozen weights and the buffers of all models."""
    names = [name for name, p in models[0].named_parameters() if not p.requires_grad]
    states = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in models]
    names += [name for name, _ in models[0].named_buffers()]
    return {name: torch.stack([state[name].detach() for state in states]) for name in names}


@torch.no_grad()
def unstack(weights: Mapping[str, Tensor], models: Sequence[nn.Module]) -> None:
    """Copies each model's weights back into it."""
    for position, model in enumerate(models):
        parameters = dict(model.named_parameters())
        for name, stack in weights.items():
            parameters[name].copy_(stack[position])


def stacked_forward(model: nn.Module) -> Callable[[Mapping[str, Tensor], Inputs], Tensor]:
    """The forward pass of all models: from stacked weights and inputs [model, batch, ...] to outputs."""

    def one(state: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
        output = functional_call(model, dict(state), args, kwargs)
        return output if isinstance(output, Tensor) else output.logits

    return torch.vmap(one)


def batch_losses(
    problem: Problem,
    predict: Callable[[Mapping[str, Tensor], Inputs], Tensor],
    state: Mapping[str, Tensor],
    raw: Raw,
    models: int,
) -> Float[Tensor, " model"]:
    """The mean loss of each model on its own rows of a batch of all."""

    def cut(field: Tensor) -> Tensor:
        return field.view(models, -1, *field.shape[1:])

    inputs = raw.inputs
    fields = {k: cut(v) for k, v in inputs.items()} if isinstance(inputs, dict) else tuple(map(cut, inputs))
    with ContiguousGradients() if raw.label.device.type == "cpu" else nullcontext():
        outputs = predict(state, fields)
    return problem.task.loss(outputs.flatten(0, 1), raw.label).view(models, -1).mean(1)


class ContiguousGradients(TorchFunctionMode):
    """Computes linear layers as (W x^T)^T, so that a batched product leaves contiguous gradients of W.

    The backward pass of `bmm` does not look at strides, unlike that of `mm`: for x W^T the gradient comes
    transposed, takes three times as long for a narrow layer, and is copied once more.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  (what torch's functions return)
        if func is not F.linear or kwargs or args[0].ndim != 2:
            return func(*args, **(kwargs or {}))
        x, weight, *bias = args
        outputs = weight @ x.mT
        if bias and bias[0] is not None:
            outputs.add_(bias[0][:, None])  # in place: a second pass over memory costs as much as the product
        return outputs.mT


def complete_gradients(weights: Stack, unused: frozenset[str]) -> None:
    """Gives weights that the loss does not depend on a gradient of zero, as `descend` does.

    Raises:
        ValueError: If such a weight is not among the unused ones.
    """
    names = [name for name, p in weights.items() if p.grad is None]
    faults = [name for name in names if name not in unused]
    if faults:
        raise ValueError(
            f"{len(faults)} weights take no part in the loss, first {faults[0]!r}: set requires_grad to "
            "False on them, or name them in Descent.unused"
        )
    for name in names:
        weights[name].grad = torch.zeros_like(weights[name])


@torch.no_grad()
def clip_each(weights: Stack, max_norm: float) -> None:
    """Scales the gradient of each model down to a norm, as `nn.utils.clip_grad_norm_` does for one."""
    gradients = [p.grad for p in weights.values() if p.grad is not None]
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients])
    factor = (max_norm / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))


def refuse_infinite_losses(losses: Float[Tensor, " model"]) -> None:
    """Raises if the loss of a model is NaN or infinite."""
    positions = (~torch.isfinite(losses)).nonzero()[:, 0].tolist()
    if positions:
        raise Failed(
            f"the loss of {len(positions)} of {len(losses)} models trained together became "
            f"{float(losses[positions[0]].detach())}: the learning rate is too strong"
        )

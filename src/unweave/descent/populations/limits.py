"""What can't be trained as one batched model, and why."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from unweave.data import Source
from unweave.descent.descend import Descent, training_mode
from unweave.descent.eight_bit import EIGHT_BIT
from unweave.descent.populations.together import batch_losses, stack_fixed, stack_weights, stacked_forward
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks.classifier import classifies


def why_alone(problems: Sequence[Problem], how: Descent, part: Part) -> str:
    """Why these models are trained one by one; empty if they can be trained together."""
    first = problems[0]
    source, ids = first.split.part(part)
    if not classifies(first.task):
        return f"only classifiers are trained together, found the task {type(first.task).__name__}"
    return (
        descent_reason(how, len(ids))
        or convolution_reason(first.model)
        or norm_reason(first.model, how)
        or augmentation_reason(source)
        or forward_reason(problems[:2], how, part)
    )


def descent_reason(how: Descent, examples: int) -> str:
    """Why a descent can't be shared; empty if it can."""
    if how.stop != "never":
        return f"stop={how.stop!r} ends the training of each model at another step"
    if how.precision != "fp32":
        return f"precision={how.precision!r} is not implemented for several models"
    if how.optimizer == EIGHT_BIT:
        return f"optimizer={EIGHT_BIT!r} rounds its states in blocks, which stacked weights would share"
    if how.optimizer == "adafactor":
        return (
            "optimizer='adafactor' scales a step by the size of a tensor, which stacked weights would share"
        )
    if how.compile:
        return "compile is not implemented for several models"
    if how.micro_batch is not None and how.micro_batch < min(how.batch, examples):
        return f"micro_batch={how.micro_batch} limits the memory, which several models need at once"
    return ""


def convolution_reason(model: nn.Module) -> str:
    """Why convolutions are not batched: on a CPU grouped ones take longer than one after the other."""
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd) and module.weight.device.type == "cpu":
            return f"{name} is a {type(module).__name__}, and on a CPU convolutions take longer together"
    return ""


def norm_reason(model: nn.Module, how: Descent) -> str:
    """Why the layers of a model can't be batched; empty if they can."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (how.norm == "train" or module.running_mean is None):
            return f"{name} is a BatchNorm that normalises by the batch: norm='frozen' would allow it"
        if isinstance(module, _DropoutNd) and how.dropout == "same" and module.p > 0:
            return f"{name} draws dropout masks from the order of the calls: dropout='off' would allow it"
        if isinstance(module, nn.RNNBase):
            return f"{name} is a {type(module).__name__}, which torch.vmap can't run"
    return ""


def augmentation_reason(source: Source) -> str:
    """Why a source can't be read for several models at once; empty if it can."""
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    next(iter(source.stream([torch.arange(1)], generator=generator)))
    if torch.equal(state, generator.get_state()):
        return ""
    return "the training data is augmented, by draws that belong to each model"


def forward_reason(problems: Sequence[Problem], how: Descent, part: Part) -> str:
    """Why `torch.vmap` can't run the model; empty if it can."""
    first, models = problems[0], [problem.model for problem in problems]
    source, ids = first.split.part(part)
    (raw,) = source.stream([ids[:1].repeat(len(models))])
    state = {**stack_weights(models), **stack_fixed(models)}
    try:
        with torch.no_grad(), training_mode(models[0], how):
            batch_losses(first, stacked_forward(models[0]), state, raw, len(models))
    except RuntimeError as error:
        return f"torch.vmap can't run the model: {str(error).splitlines()[0]}"
    return ""

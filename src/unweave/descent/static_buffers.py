"""Batches, and what a loss draws for them, in static buffers that later batches are copied into."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from unweave.tasks import Batch
from unweave.weights.params import Params


def names_of(batch: Batch) -> list[str]:
    """The names of its inputs, in order; empty if they have none."""
    return sorted(batch.inputs) if isinstance(batch.inputs, Mapping) else []


def tensors_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch that a step may read on the device."""
    inputs = batch.inputs
    input_tensors = [inputs[name] for name in sorted(inputs)] if isinstance(inputs, Mapping) else list(inputs)
    return [batch.ids, *input_tensors, batch.target, *([] if batch.forget is None else [batch.forget])]


def copy_batch(batch: Batch) -> Batch:
    """A batch in memory of its own."""
    inputs = batch.inputs
    copies = clone(inputs) if isinstance(inputs, Mapping) else tuple(each.clone() for each in inputs)
    forget = None if batch.forget is None else batch.forget.clone()
    return replace(batch, ids=batch.ids.clone(), inputs=copies, target=batch.target.clone(), forget=forget)


def fill_batch(fixed: Batch, batch: Batch) -> None:
    """Copies a batch into the memory of another, with what its later draws depend on."""
    for buffer, new in zip(tensors_of(fixed), tensors_of(batch), strict=True):
        buffer.copy_(new)
    fixed.__dict__.update(key=batch.key, counterfactual=batch.counterfactual)
    fixed.__dict__.pop("other", None)  # it is drawn again


def copy_constant(value: object) -> object:
    """A constant of a step, a tensor or a batch or several, in memory of its own.

    Raises:
        ValueError: If it is anything else.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Batch):
        return copy_batch(value)
    if isinstance(value, tuple):
        return tuple(map(copy_constant, value))
    raise ValueError(
        f"compile='step' copies tensors, and a loss draws a {type(value).__name__}: set compile = false"
    )


def fill_constant(fixed: object, new: object) -> None:
    """Copies a constant of a step into the memory of an earlier one.

    Raises:
        ValueError: If it is of another type.
    """
    if isinstance(fixed, Tensor) and isinstance(new, Tensor):
        fixed.copy_(new)
    elif isinstance(fixed, Batch) and isinstance(new, Batch):
        fill_batch(fixed, new)
    elif isinstance(fixed, tuple) and isinstance(new, tuple):
        for buffer, each in zip(fixed, new, strict=True):
            fill_constant(buffer, each)
    else:
        raise ValueError(
            f"compile='step' expects values of one type at every step, found {type(new).__name__} after "
            f"{type(fixed).__name__}: set compile = false"
        )


def clone(tensors: Params) -> dict[str, Tensor]:
    """Named tensors, such as a gradient, in memory of their own."""
    return {name: each.clone() for name, each in tensors.items()}

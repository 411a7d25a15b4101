"""Weights of which every process holds one piece: what FSDP2's `fully_shard` makes of a model.

A sharded tensor is cut into rows. Arithmetic needs only the pieces, and sums add up what the processes find.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

WHOLE = frozenset((Tensor, nn.Parameter))
"""The types of tensors of which this process holds all."""


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a piece of the tensor (FSDP2)."""
    if type(tensor) in WHOLE:
        return False
    from torch.distributed.tensor import DTensor  # takes half a second, and only sharded models need it

    return isinstance(tensor, DTensor)


def local_rows(tensor: Tensor) -> Tensor:
    """This process's rows of a tensor, in the same memory; the tensor itself if it is whole."""
    return tensor.detach().to_local() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def pieces(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This process's rows of each tensor."""
    items = list(tensors)
    return items if WHOLE.issuperset(map(type, items)) else list(map(local_rows, items))


def as_sharded(rows: Tensor, like: Tensor) -> Tensor:
    """These rows as this process's piece of a tensor sharded as `like`; unchanged if that is whole."""
    if not is_sharded(like):
        return rows
    from torch.distributed.tensor import DTensor

    mesh, placements = like.device_mesh, like.placements  # pyright: ignore[reportAttributeAccessIssue]
    return DTensor.from_local(rows, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


def cut(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process holds, sharded as `like`."""
    if not is_sharded(like):
        return whole.to(like.device)
    start = first_row(like)
    rows = whole[start : start + local_rows(like).shape[0]]
    return as_sharded(rows.to(like.device, copy=True), like)


def add_rows(weight: Tensor, whole: Tensor) -> None:
    """Adds a whole tensor, which every process holds, to a weight in place; each process adds its rows."""
    local_rows(weight).add_(local_rows(cut(whole, weight)))


def first_row(tensor: Tensor) -> int:
    """The index of the first row of this process's piece."""
    share = -(-tensor.shape[0] // dist.get_world_size())  # as torch.chunk cuts
    return min(share * dist.get_rank(), tensor.shape[0])


def local_with_gradient(weight: Tensor) -> Tensor:
    """This process's rows of a weight, as a function of it that has a gradient; the weight if it is whole."""
    return weight.to_local() if is_sharded(weight) else weight  # pyright: ignore[reportAttributeAccessIssue]


def add_up(of: Iterable[Tensor], values: Sequence[Tensor]) -> Tensor:
    """The sum of one scalar per tensor, over the processes for those that are sharded; differentiable.

    Args:
        of: The tensors.
        values: What this process finds for its rows of each.
    """
    flags = list(map(is_sharded, of))
    if not any(flags):
        return torch.stack(list(values)).sum()
    sharded_values, whole_values = (
        [v for v, flag in zip(values, flags, strict=True) if flag == kind] for kind in (True, False)
    )
    return torch.stack([AddProcesses.apply(torch.stack(sharded_values).sum()), *whole_values]).sum()


class AddProcesses(torch.autograd.Function):
    """The sum of each process's value, whose derivative by each is one."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        """The sum."""
        return sum_over_processes(value)

    @staticmethod
    def backward(ctx: object, *grad_outputs: Tensor) -> Tensor:
        """The gradient by this process's value."""
        return grad_outputs[0]


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of each process's value."""
    total = value.clone()
    dist.all_reduce(total)
    return total


def names_where(tensors: Mapping[str, Tensor], test: Callable[[Tensor], Tensor]) -> list[str]:
    """The names of the tensors of which a test holds for any element, on any process if they are sharded.

    Args:
        tensors: The tensors.
        test: Maps a tensor to truth values, or to numbers of which zero is false.
    """
    if not tensors:
        return []
    flags = torch.stack([test(local_rows(each)).any() for each in tensors.values()])
    if any(map(is_sharded, tensors.values())):
        flags = sum_over_processes(flags.int())
    return [name for name, flag in zip(tensors, flags.tolist(), strict=True) if flag]


def not_finite(tensor: Tensor) -> Tensor:
    """Where a tensor is NaN or infinite."""
    return ~torch.isfinite(tensor)

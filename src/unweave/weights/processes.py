"""Several processes that train one model: who takes which examples, and how gradients are summed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from unweave.weights.params import Params, is_sharded, scale

BUCKET = 25 * 2**20
"""The size of one message in bytes; DistributedDataParallel's default."""


@dataclass(frozen=True)
class Processes:
    """This process among those that share a model.

    Gradients are divided by the number of examples of the *whole* batch before they are summed, so uneven
    shards weigh by their examples.

    Args:
        rank: The number of this process.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """The default process group of `torch.distributed`, or the only process."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def shard(self, ids: Tensor) -> Tensor:
        """The rows of a whole batch that this process takes."""
        return ids if self.count == 1 else ids[self.rank :: self.count]

    def rows_to_read(self, ids: Tensor) -> Tensor:
        """The rows that this process reads: its own, or one that it drops where it has none.

        So every process draws as many keys for augmentation and noise as the others.
        """
        return self.shard(ids) if self.owns(ids) else ids[:1]

    def owns(self, ids: Tensor) -> bool:
        """Whether this process has any row of a whole batch."""
        return len(ids) > self.rank

    def total(self, gradient: Params) -> Params:
        """The sum over processes, in as few messages as the bucket size allows.

        Sharded gradients (FSDP2) were averaged on their way; they are only scaled.
        """
        if self.count == 1:
            return gradient
        if any(map(is_sharded, gradient.values())):
            return scale(gradient, self.count)
        summed: dict[str, Tensor] = {}
        for names in buckets(gradient):
            flat = torch.cat([gradient[name].flatten() for name in names])
            dist.all_reduce(flat)
            pieces = flat.split([gradient[name].numel() for name in names])
            summed |= {name: piece.view_as(gradient[name]) for name, piece in zip(names, pieces, strict=True)}
        return summed


def buckets(gradient: Params) -> Iterator[list[str]]:
    """Names in their order, grouped by dtype, until a group holds `BUCKET` bytes."""
    names, size, dtype = [], 0, None
    for name, tensor in gradient.items():
        full = size + tensor.nbytes > BUCKET or (dtype is not None and tensor.dtype != dtype)
        if names and full:
            yield names
            names, size = [], 0
        names.append(name)
        size, dtype = size + tensor.nbytes, tensor.dtype
    if names:
        yield names

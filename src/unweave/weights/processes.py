"""Several processes that train one model: how examples are shared out and gradients summed."""

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
        rank: The index of this process, from 0.
        count: The number of processes.
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
        """The rows that this process reads: its shard, or one row to discard if its shard is empty.

        So every process draws the same number of keys for augmentation and noise.
        """
        return self.shard(ids) if self.owns(ids) else ids[:1]

    def owns(self, ids: Tensor) -> bool:
        """Whether this process has any row of a whole batch."""
        return len(ids) > self.rank

    def total(self, gradient: Params) -> Params:
        """The sum over processes, in messages of at most `BUCKET` bytes.

        Sharded gradients (FSDP2) are already averaged; they are only scaled.
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
    """Groups names, in order, by dtype into messages of at most `BUCKET` bytes."""
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

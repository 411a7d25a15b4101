"""Several processes that train one model: how examples are shared out and gradients summed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from unweave.tasks import Batch
from unweave.weights.params import Params, scale
from unweave.weights.sharded import is_sharded

BUCKET = 25 * 2**20
"""The size of one message in bytes; DistributedDataParallel's default."""

T = TypeVar("T")

_works_alone: ContextVar[bool] = ContextVar("works_alone", default=False)


@dataclass(frozen=True)
class Processes:
    """This process among those that share a model.

    Gradients are divided by the number of examples of the *whole* batch before they are summed, so uneven
    shards weigh by their examples.

    Args:
        rank: The index of this process, from 0.
        count: The number of processes.
        sharded: Whether each holds a piece of every weight (FSDP2), so that all must take part in every pass.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

    @classmethod
    def current(cls) -> "Processes":
        """The default process group of `torch.distributed`, or the only process."""
        if _works_alone.get() or not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def from_first(self, make: Callable[[], T]) -> T:
        """The result of a function that the first process runs alone; the other processes get a copy.

        All processes must call this together. The result is pickled.

        Raises:
            Exception: On every process, whatever the function raised on the first.
        """
        if self.count == 1:
            return make()
        message: list[tuple[T | None, Exception | None]] = [(None, None)]
        if self.rank == 0:
            message = [attempt_alone(make)]
        dist.broadcast_object_list(message, src=0)
        value, error = message[0]
        if error is not None:
            raise error
        return value  # pyright: ignore[reportReturnType]  # None only if `make` returned it

    def from_each(self, make: Callable[[], T]) -> list[T]:
        """What each process gets from its call of a function, in their order, on every process.

        All processes must call this together. The results are pickled.

        Raises:
            Exception: On every process, what the function raised on the first that failed.
        """
        if self.count == 1:
            return [make()]
        outcomes: list[tuple[T | None, Exception | None]] = [(None, None)] * self.count
        dist.all_gather_object(outcomes, attempt_alone(make))
        for _, error in outcomes:
            if error is not None:
                raise error
        return [value for value, _ in outcomes]  # pyright: ignore[reportReturnType]  # as in from_first

    def shard(self, ids: Tensor) -> Tensor:
        """The rows of a whole batch that this process takes."""
        return ids if self.count == 1 else ids[self.rank :: self.count]

    def rows_to_read(self, ids: Tensor) -> Tensor:
        """The rows that this process reads: its shard, or one row to discard if its shard is empty.

        So every process draws the same number of keys for augmentation and noise.
        """
        if self.count == 1:
            return ids
        return self.shard(ids) if self.owns(ids) else ids[:1]

    def owns(self, ids: Tensor) -> bool:
        """Whether this process has any row of a whole batch."""
        return len(ids) > self.rank

    def micro_batches(self, whole: Tensor, batch: Batch, size: int | None = None) -> list[Batch]:
        """This process's part of a whole batch, in micro-batches; empty if it has no rows.

        If the weights are sharded, all processes get as many micro-batches: the missing ones are blank.

        Args:
            whole: The ids of the whole batch.
            batch: What this process has read of it: see `rows_to_read`.
            size: The largest number of examples in a micro-batch; no limit if None.
        """
        if self.count == 1:
            return [batch] if size is None else batch.split(size)
        batches = batch.split(size or len(batch)) if self.owns(whole) else []
        if not self.sharded:
            return batches
        largest = -(-len(whole) // self.count)
        return batches + [batch.blank_row() for _ in range(-(-largest // (size or largest)) - len(batches))]

    def anywhere(self, flag: bool, device: torch.device | str = "cpu") -> bool:
        """Whether a flag is set on any process; all must call this together."""
        if self.count == 1:
            return flag
        flags = torch.tensor(int(flag), device=device)
        dist.all_reduce(flags)
        return bool(flags)

    def largest(self, value: float | None) -> float | None:
        """The largest of each process's value, None if unknown to one; all must call this together."""
        if self.count == 1:
            return value
        values: list[float | None] = [None] * self.count
        dist.all_gather_object(values, value)
        known_values = [each for each in values if each is not None]
        return max(known_values) if len(known_values) == self.count else None

    def total(self, gradient: Params) -> Params:
        """The sum over processes, in messages of at most `BUCKET` bytes.

        Sharded gradients (FSDP2) are already averaged; they are only scaled.
        """
        if self.count == 1:
            return gradient
        shards = {name: each for name, each in gradient.items() if is_sharded(each)}
        tensors = {name: each for name, each in gradient.items() if name not in shards}
        total = {**scale(shards, self.count), **self.sum(tensors)} if shards else self.sum(tensors)
        return {name: total[name] for name in gradient} if shards else total

    def sum(self, gradient: Params) -> dict[str, Tensor]:
        """The sum over processes of tensors that each holds whole."""
        sums: dict[str, Tensor] = {}
        for names in buckets(gradient):
            flat = torch.cat([gradient[name].flatten() for name in names])
            dist.all_reduce(flat)
            pieces = flat.split([gradient[name].numel() for name in names])
            sums |= {name: piece.view_as(gradient[name]) for name, piece in zip(names, pieces, strict=True)}
        return sums


@contextmanager
def work_alone() -> Iterator[None]:
    """Makes this process the only one for the body, in which the other processes take no part."""
    token = _works_alone.set(True)
    try:
        yield
    finally:
        _works_alone.reset(token)


def attempt_alone(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Calls a function on this process alone; returns its result, or its error."""
    try:
        with work_alone():
            return make(), None
    except Exception as error:  # noqa: BLE001  # raised again on every process
        return None, error


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

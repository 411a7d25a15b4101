"""Gradients at one position of the weights and on one set of batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from unweave.split import Part
from unweave.tasks import Batch, call
from unweave.weights.params import Params, multiply, norm
from unweave.weights.runtime import Runtime
from unweave.weights.sharded import local_rows
from unweave.weights.shift import HALF, refuse_half, shift_weights, substitute_weights

__all__ = ["Step", "Term"]

NOTED = 50
"""Number of steps between two records of the size of a lookahead."""

T = TypeVar("T")


@runtime_checkable
class Term(Protocol):
    """Something to minimise."""

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that the term needs."""
        ...

    def present(self, step: "Step") -> bool:
        """Whether the step has the data that the term needs; otherwise the step leaves the term out."""
        ...

    def gradient(self, step: "Step") -> Params:
        """The gradient at the step's weights: detached, summed over processes, one tensor per weight."""
        ...


class Step:
    """One position of the weights, and one set of batches.

    Gradients are cached by the identity of their term, so a term that occurs twice is evaluated once. A
    lookahead is a child step at shifted weights, with an empty cache.

    Args:
        params: The trainable weights.
        runtime: What the steps of a descent share.
        batches: The micro-batches of each part on this process; a part may be absent.
        sizes: The number of examples of each part, over all micro-batches and processes.
        index: The number of this step, from 0.
        of: The total number of steps.
        before: The gradients of the previous step, for `PreviousGradient`.

    Attributes:
        constants: What `once` made.
        makers: The functions that made it, if somebody will make it again.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        runtime: Runtime,
        batches: Mapping[Part, Sequence[Batch]],
        sizes: Mapping[Part, int],
        *,
        index: int = 0,
        of: int = 1,
        before: Mapping[int, Params] | None = None,
    ) -> None:
        self.params, self.runtime, self.batches, self.sizes = params, runtime, batches, sizes
        self.index, self.of, self.before = index, of, before or {}
        self.ahead = False
        self.memory: dict[int, tuple[Term, Params]] = {}
        self.constants: dict[object, object] = {}
        self.makers: dict[object, Callable[[], object]] | None = None
        self._passed: dict[int, int] = {}
        self._outputs: dict[int, Tensor] = {}

    def gradient(self, term: Term) -> Params:
        """The gradient of a term at these weights, evaluated at most once; valid until the step ends."""
        if id(term) not in self.memory:
            self.memory[id(term)] = (term, term.gradient(self))
        return self.memory[id(term)][1]

    def free_gradients(self, needed: Iterable[Term]) -> None:
        """Frees all gradients but those of these terms, and those that the next step needs."""
        kept_ids = {*map(id, needed), *self.runtime.lagged_terms}
        self.memory = {key: each for key, each in self.memory.items() if key in kept_ids}

    def deposit(self, term: Term, gradient: Params) -> None:
        """Caches a gradient that was computed on the way to another."""
        self.memory[id(term)] = (term, gradient)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Computes a constant of the step once, also for shifted weights: a teacher's output, latents."""
        if key not in self.constants:
            self.constants[key] = make()
            if self.makers is not None:
                self.makers[key] = make
        return cast(T, self.constants[key])

    def predict(self, batch: Batch) -> Tensor:
        """The model's output on a batch, in float32 or float64.

        The first pass over a batch in a step updates running statistics, later ones do not.
        """
        if id(batch) not in self._outputs:
            output = self._pass(batch)
            # in bf16 the loss and its sum over a batch would be rounded
            self._outputs[id(batch)] = output.float() if output.dtype in HALF else output
        return self._outputs[id(batch)]

    def _pass(self, batch: Batch) -> Tensor:
        runtime, device = self.runtime, batch.target.device.type
        is_first = id(batch) not in self._passed
        place = self._passed.setdefault(id(batch), len(self._passed))
        half = runtime.precision == "bf16"
        # autocast is opened here, not around the step: its cache of cast weights would survive a shift
        uses_autocast = half or torch.is_autocast_enabled(device)
        if (is_first or not runtime.norms) and runtime.noise is None and not uses_autocast:
            return call(runtime.forward, batch.inputs)  # no context: they cost as much as a small layer
        with (
            nullcontext() if is_first else runtime.keep_statistics(),
            runtime.same_noise(place),
            torch.autocast(device, torch.bfloat16, enabled=half) if uses_autocast else nullcontext(),
        ):
            return call(runtime.forward, batch.inputs)

    def note(self, name: str) -> list[Tensor]:
        """Opens a note of a loss for the curves; its shares are summed later, without a wait now."""
        shares: list[Tensor] = []
        self.runtime.losses.append((f"{name} ahead" if self.ahead else name, shares))
        return shares

    def count(self, examples: int) -> None:
        """Counts one gradient evaluation over this process's share of a batch."""
        self.runtime.cost.gradients += 1
        self.runtime.cost.examples += examples

    def total(self, shares: Iterable[Tensor]) -> Tensor:
        """The sum of scalars over all micro-batches and processes."""
        # a process may have no rows of an uneven batch
        zero = local_rows(next(iter(self.params.values()))).new_zeros(())
        return self.runtime.processes.total({"total": sum(shares, start=zero)})["total"]

    def backward(self, losses: Iterable[Tensor]) -> Params:
        """The gradient of the sum of the losses, over all processes, masked; frees each graph at once."""
        for p in self.params.values():
            p.grad = None
        for loss in losses:
            loss.backward()
            self._outputs.clear()
        gradient: dict[str, Tensor | None] = {}
        for name, p in self.params.items():
            gradient[name], p.grad = p.grad, None
        return self.finish_gradient(gradient)

    def recompute_losses(self, losses: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the losses, each from forward passes of its own."""
        for loss in losses:
            self._outputs.clear()
            yield loss

    def drop_outputs(self) -> None:
        """Forgets the cached outputs, whose graphs are freed."""
        self._outputs.clear()

    def finish_gradient(self, gradient: Mapping[str, Tensor | None], *, check: bool = True) -> Params:
        """Checks this process's gradient, sums it over processes and masks it.

        Raises:
            ValueError: At the first step, if a weight has no gradient.
        """
        if check and self.index == 0:
            self._refuse_missing(gradient)
        complete = {
            name: torch.zeros_like(self.params[name]) if g is None else g for name, g in gradient.items()
        }
        total = self.runtime.processes.total(complete)
        return total if self.runtime.where is None else multiply(total, self.runtime.where)

    def _refuse_missing(self, gradient: Mapping[str, Tensor | None]) -> None:
        names = [name for name, g in gradient.items() if g is None and name not in self.runtime.unused]
        no_data_here = len(names) == len(gradient) and self.runtime.processes.count > 1
        if names and not no_data_here:
            raise ValueError(
                f"{len(names)} weights take no part in the loss, first {names[0]!r}: "
                "set requires_grad to False on them, or name them in Descent.unused"
            )

    def at(self, direction: Params, size: float) -> AbstractContextManager["Step"]:
        """A step at `weights + size * direction`; restores the weights bit for bit, also after an error.

        Raises:
            ValueError: If the weights are bf16 or fp16, which would round most of the shift away.
        """
        self._check_shift(direction, size)
        child = self._child(self.params)
        return shift_weights(self.params, direction, size, self.runtime.spare_memory, child)

    @contextmanager
    def at_copy(self, direction: Params, size: float) -> Iterator["Step"]:
        """Like `at`, on substituted copies of the weights, so that graphs built on the weights stay valid."""
        self._check_shift(direction, size)
        copies = {name: nn.Parameter(p.detach() + size * direction[name]) for name, p in self.params.items()}
        with substitute_weights(self.runtime.model, self.params, copies):
            yield self._child(copies)

    def _check_shift(self, direction: Params, size: float) -> None:
        if not self.runtime.spare_memory:  # before the first shift of a descent: types do not change
            refuse_half(self.params)
        if self.runtime.shifts is not None and self.index % NOTED == 0:
            with torch.no_grad():
                self.runtime.shifts.append((self.index, abs(size) * norm(direction) / norm(self.params)))

    def _child(self, params: Mapping[str, Tensor]) -> "Step":
        child = Step(
            params, self.runtime, self.batches, self.sizes, index=self.index, of=self.of, before=self.before
        )
        child.ahead, child._passed = True, self._passed
        child.constants, child.makers = self.constants, self.makers
        return child

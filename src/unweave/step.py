"""One position of the weights and one set of batches: where gradients are taken."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unweave.params import Params, multiply
from unweave.problem import Cost, Part
from unweave.processes import Processes
from unweave.tasks import Batch, Task, call

Precision = Literal["fp32", "bf16"]
T = TypeVar("T")


@runtime_checkable
class Term(Protocol):
    """Something to follow downhill."""

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that it needs."""
        ...

    def present(self, step: "Step") -> bool:
        """Whether the step has what it needs; otherwise the step goes on without it."""
        ...

    def gradient(self, step: "Step") -> Params:
        """Its gradient at the step's weights: detached, over all processes, one tensor per weight."""
        ...


@dataclass
class Runtime:
    """What the steps of one descent share.

    Args:
        model: The module that is run.
        family: How its outputs are scored; None where the caller's own closures do that.
        precision: The type of the forward pass; weights and gradients stay as they are.
        processes: Who shares the work.
        cost: Counts gradient evaluations and examples.
        where: A multiplier in [0, 1] per weight, applied to every gradient before anything reads it.
        unused: Weights that may have no gradient.
        losses: The loss of every evaluation, on the device.
        carried: The terms whose gradients the next step needs.
        held: Gradients that are held over several steps.
    """

    model: nn.Module
    family: Task | None
    precision: Precision = "fp32"
    processes: Processes = field(default_factory=Processes)
    cost: Cost = field(default_factory=Cost)
    where: Params | None = None
    unused: frozenset[str] = frozenset()
    losses: list[tuple[str, Tensor]] = field(default_factory=list)
    carried: set[int] = field(default_factory=set)
    held: dict[int, Params] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.training]

    @property
    def task(self) -> Task:
        """How outputs are scored."""
        if self.family is None:
            raise ValueError("these steps have no task: only closures can be followed")
        return self.family

    @contextmanager
    def statistics_kept(self) -> Iterator[None]:
        """BatchNorm normalises by the batch, and its running statistics stay as they are."""
        tracking = [m.track_running_stats for m in self.norms]
        for m in self.norms:
            m.track_running_stats = False
        try:
            yield
        finally:
            for m, tracked in zip(self.norms, tracking, strict=True):
                m.track_running_stats = tracked


class Step:
    """One position of the weights, and one set of batches.

    Gradients are remembered by the identity of their term, so a term that stands in two places of an objective is
    evaluated once. A lookahead is a child step at shifted weights, with an empty memory.

    Args:
        params: The trainable weights.
        runtime: What the steps of a descent share.
        batches: The micro-batches of each part on this process; a part may be absent.
        sizes: The number of examples of each part over all micro-batches and processes.
        index: The number of this step.
        of: How many there will be.
        before: What the step before ended with, for `Previous`.
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
        self._constants: dict[object, object] = {}
        self._passed: set[int] = set()
        self._outputs: dict[int, Tensor] = {}

    def gradient(self, term: Term) -> Params:
        """The gradient of a term at these weights, evaluated at most once."""
        if id(term) not in self.memory:
            self.memory[id(term)] = (term, term.gradient(self))
        return self.memory[id(term)][1]

    def deposit(self, term: Term, gradient: Params) -> None:
        """Remembers a gradient that was found on the way to another."""
        self.memory[id(term)] = (term, gradient)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """A constant of the step, the same at shifted weights: a teacher's output, latents."""
        if key not in self._constants:
            self._constants[key] = make()
        return cast(T, self._constants[key])

    def predict(self, batch: Batch) -> Tensor:
        """The model's output on a batch; the first pass over it in a step updates running statistics, later ones do not."""
        if id(batch) in self._outputs:
            return self._outputs[id(batch)]
        runtime, device = self.runtime, batch.target.device.type
        first = id(batch) not in self._passed
        self._passed.add(id(batch))
        statistics = nullcontext() if first or not runtime.norms else runtime.statistics_kept()
        # autocast is opened here and not around the step: its cache of cast weights would survive a shift
        with statistics, torch.autocast(device, torch.bfloat16, enabled=runtime.precision == "bf16"):
            self._outputs[id(batch)] = call(runtime.model, batch.inputs)
        return self._outputs[id(batch)]

    def record(self, name: str, loss: Tensor) -> None:
        """Notes a loss for the curves, without waiting for the device."""
        self.runtime.losses.append((f"{name} ahead" if self.ahead else name, loss.detach()))

    def count(self, examples: int) -> None:
        """Notes one gradient evaluation over this process's share of a batch."""
        self.runtime.cost.gradients += 1
        self.runtime.cost.examples += examples

    def backward(self, losses: Iterable[Tensor]) -> Params:
        """The gradient of the sum of the losses, each freed before the next is made; over all processes, masked."""
        for p in self.params.values():
            p.grad = None
        for loss in losses:
            loss.backward()
            self._outputs.clear()
        return self.leave({name: p.grad for name, p in self.params.items()})

    def afresh(self, losses: Iterable[Tensor]) -> Iterator[Tensor]:
        """The losses, each with forward passes of its own."""
        for loss in losses:
            self._outputs.clear()
            yield loss

    def forget_outputs(self) -> None:
        """Drops the outputs of forward passes whose graph was used."""
        self._outputs.clear()

    def leave(self, gradient: Mapping[str, Tensor | None], *, check: bool = True) -> Params:
        """Checks a local gradient, sums it over processes and masks it.

        Raises:
            ValueError: At the first step, if a weight has no gradient or every gradient is zero.
        """
        if check and self.index == 0:
            self._check(gradient)
        filled = {name: torch.zeros_like(self.params[name]) if g is None else g for name, g in gradient.items()}
        for p in self.params.values():
            p.grad = None
        summed = self.runtime.processes.total(filled)
        return summed if self.runtime.where is None else multiply(summed, self.runtime.where)

    def _check(self, gradient: Mapping[str, Tensor | None]) -> None:
        missing = [name for name, g in gradient.items() if g is None and name not in self.runtime.unused]
        if missing:
            raise ValueError(f"{len(missing)} weights take no part in the loss, first {missing[0]!r}: "
                             "set requires_grad to False on them, or name them in Descent.unused")  # fmt: skip
        if not any(bool(g.any()) for g in gradient.values() if g is not None):
            raise ValueError("the gradient is zero in every weight: nothing would be learned from this term")

    @contextmanager
    def at(self, direction: Params, size: float) -> Iterator["Step"]:
        """A step at `weights + size * direction`; the weights are restored bit for bit, also when the body raises.

        Raises:
            ValueError: If the weights are bf16 or fp16, which would swallow most of the shift.
        """
        weights = list(self.params.values())
        check_full_precision(self.params)
        saved = [p.detach().clone() for p in weights]
        moves = list(direction.values())
        try:
            with torch.no_grad():
                torch._foreach_add_(weights, moves, alpha=size)
            torch.clear_autocast_cache()  # a caller's own autocast would go on with the weights it has cast
            yield self._child(self.params)
        finally:
            with torch.no_grad():
                for p, old in zip(weights, saved, strict=True):  # sharded weights have no _foreach_copy_
                    p.copy_(old)
            torch.clear_autocast_cache()

    @contextmanager
    def beside(self, direction: Params, size: float) -> Iterator["Step"]:
        """The same on copies of the weights, put in the modules' place: graphs built on the weights stay valid."""
        check_full_precision(self.params)
        shifted = {
            name: (p.detach() + size * direction[name]).requires_grad_() for name, p in self.params.items()
        }
        with substituted(self.runtime.model, self.params, shifted):
            yield self._child(shifted)

    def _child(self, params: Mapping[str, Tensor]) -> "Step":
        child = Step(params, self.runtime, self.batches, self.sizes, index=self.index, of=self.of, before=self.before)
        child.ahead, child._constants, child._passed = True, self._constants, self._passed
        return child


def check_full_precision(params: Mapping[str, Tensor]) -> None:
    """Raises if a trainable weight has too few digits to be shifted."""
    for name, p in params.items():
        if p.dtype in (torch.bfloat16, torch.float16):
            raise ValueError(f"a lookahead needs float32 weights, found {name} in {p.dtype}: most of the shift would be "
                             "rounded away; keep a float32 master copy and set precision='bf16'")  # fmt: skip


@contextmanager
def substituted(model: nn.Module, params: Mapping[str, Tensor], by: Mapping[str, Tensor]) -> Iterator[None]:
    """Puts other tensors in the place of the weights, forward and backward, tied weights included.

    `torch.func.functional_call` ends with the forward pass, and gradient checkpointing runs the modules again after it.
    """
    names = {id(p): name for name, p in params.items()}
    held = [(m._parameters, key, p) for m in model.modules() for key, p in m._parameters.items() if id(p) in names]
    for table, key, p in held:
        table[key] = by[names[id(p)]]  # pyright: ignore[reportArgumentType]  # a plain tensor serves a forward pass
    try:
        yield
    finally:
        for table, key, p in held:
            table[key] = p


def mean_over(values: Float[Tensor, " batch"], size: int) -> Float[Tensor, ""]:
    """This micro-batch's share of the mean over all examples of a part."""
    return values.sum() / size

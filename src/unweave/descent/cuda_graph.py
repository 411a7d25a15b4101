"""Steps whose gradients are recorded once as a CUDA graph and replayed over static buffers.

On a small model a GPU waits for Python between two kernels. A replay launches all kernels of a step at once.
What a step draws on the host, such as wrong labels, is drawn before the replay and copied into the memory
that the graph reads. The update of the optimizer stays outside.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from unweave.descent.lookahead import Lookahead, PreviousGradient
from unweave.descent.memories import terms_of, watches
from unweave.descent.settings import Descent, Phase
from unweave.descent.static_buffers import (
    clone,
    copy_batch,
    copy_constant,
    fill_batch,
    fill_constant,
    names_of,
    tensors_of,
)
from unweave.descent.weighted_sum import Objective, OnWeights
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.cost import Cost
from unweave.weights.params import Params
from unweave.weights.step import NOTED, Step

Direction = Callable[[Step, Phase, torch.Generator], Params]
Batches = Mapping[Part, Sequence[Batch]]

MOST_SHAPES = 8
"""The number of shapes of batches that have a graph; each keeps memory. Others run eagerly."""


def capture(run: Callable[[], None]) -> Callable[[], None]:
    """Records the kernels of `run` as a CUDA graph, replays it once, and returns its replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    return graph.replay


@dataclass(eq=False)
class CapturedDirection:
    """The combined gradient of a step, replayed where an earlier step had batches of the same shapes.

    The first step of each shape runs eagerly, which prepares the device; the second is recorded. Every
    `NOTED`-th step runs eagerly too, because it checks gradients or notes the size of a lookahead. On the
    CPU there are no graphs, so each step runs eagerly over the static buffers, with the same result.

    Args:
        direction: Combines the gradients of a step.
        recorded: The steps that were prepared or recorded, by the shapes of their batches.
    """

    direction: Direction
    recorded: dict[object, "RecordedStep"] = field(default_factory=dict)

    def __call__(self, step: Step, phase: Phase, generator: torch.Generator) -> Params:
        """The direction; valid until the next step."""
        if step.index % NOTED == 0:
            return self.direction(step, phase, generator)
        key = shapes_of(step)
        if key not in self.recorded:
            if len(self.recorded) == MOST_SHAPES:
                return self.direction(step, phase, generator)
            self.recorded[key] = RecordedStep(step, lambda fixed: self.direction(fixed, phase, generator))
        return self.recorded[key](step)


class RecordedStep:
    """One step over static buffers: batches, constants of the step, and gradients of the step before.

    Args:
        step: The step to copy.
        direction: Combines the gradients of a step.
    """

    def __init__(self, step: Step, direction: Callable[[Step], Params]) -> None:
        self.params, self.runtime, self.sizes, self.of = step.params, step.runtime, step.sizes, step.of
        self.direction = direction
        self.batches: Batches = {
            part: [copy_batch(each) for each in batches] for part, batches in step.batches.items()
        }
        self.before = {key: clone(gradient) for key, gradient in step.before.items()}
        self.constants: dict[object, object] = {}
        self.makers: dict[object, Callable[[], object]] = {}
        self.replay: Callable[[], None] | None = None
        self.prepared = False

    def __call__(self, step: Step) -> Params:
        """The direction at another step with batches of the same shapes."""
        self.fill(step)
        if self.replay is not None:
            self.replay()
        elif self.prepared and self.on_gpu:
            self.replay = capture(self.run)
        else:
            self.run()
            self.constants = {key: copy_constant(value) for key, value in self.constants.items()}
            self.prepared = True
        # a replay writes the next losses over these
        step.runtime.losses += [(name, [share.clone() for share in shares]) for name, shares in self.losses]
        step.runtime.cost += self.cost
        step.memory.update(self.kept)
        step.before = step.runtime.before = {}
        return self.found

    @property
    def on_gpu(self) -> bool:
        """Whether the weights are on a CUDA device."""
        return next(iter(self.params.values())).is_cuda

    def fill(self, step: Step) -> None:
        """Copies what a step reads into the static buffers."""
        for part, batches in step.batches.items():
            for buffer, batch in zip(self.batches[part], batches, strict=True):
                fill_batch(buffer, batch)
        for key, gradient in self.before.items():
            torch._foreach_copy_(list(gradient.values()), list(step.before[key].values()))
        for key, make in self.makers.items():
            fill_constant(self.constants[key], make())

    def run(self) -> None:
        """Runs the step over the static buffers."""
        runtime = self.runtime
        step = Step(self.params, runtime, self.batches, self.sizes, index=1, of=self.of, before=self.before)
        step.constants, step.makers = self.constants, self.makers
        state = runtime.losses, runtime.cost
        runtime.losses, runtime.cost = [], Cost()
        try:
            self.found = self.direction(step)
        finally:
            (self.losses, self.cost), (runtime.losses, runtime.cost) = (runtime.losses, runtime.cost), state
        self.kept = {key: step.memory[key] for key in runtime.lagged_terms if key in step.memory}


def shapes_of(step: Step) -> object:
    """What two steps share if one can replay the other: the shapes of batches, and what they remember."""
    batches = [
        (
            part,
            [(each.blank, names_of(each), [(t.shape, t.dtype) for t in tensors_of(each)]) for each in group],
        )
        for part, group in step.batches.items()
    ]
    return repr((batches, sorted(step.sizes.items()), sorted(step.before)))


def refuse_changing_steps(problem: Problem, how: Descent, phases: Sequence[Phase]) -> None:
    """Raises if steps are to be replayed, and two of them may run different kernels or read other numbers.

    Raises:
        ValueError: Names what changes from step to step.
    """
    if how.compile != "step":
        return
    changes = ["several processes"] * (problem.processes.count > 1) + ["dropout"] * (how.dropout == "same")
    norms = [m for m in problem.model.modules() if isinstance(m, _BatchNorm)]
    changes += ["a BatchNorm without momentum"] * any(m.momentum is None for m in norms)
    changes += [each for phase in phases for each in changes_of(phase)]
    if changes:
        raise ValueError(f"compile='step' replays one step, and {changes[0]} changes it: set compile = false")


def changes_of(phase: Phase) -> Iterator[str]:
    """What a phase changes from one step to the next, in words."""
    if phase.rule != "total":
        yield f"the rule {phase.rule!r}"
    for term in terms_of(phase.terms):
        if not isinstance(term, Objective | Lookahead | PreviousGradient):
            yield f"a term of the type {type(term).__name__}"
        for _, piece in term.pieces if isinstance(term, Objective) else ():
            if piece.follows_progress if isinstance(piece, OnWeights) else piece.watch is not None:
                yield f"the loss {piece.name!r}"
    if any(True for _ in watches(phase.watch)):
        yield "what runs before every step"

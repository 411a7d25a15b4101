"""A small smooth classifier in float64, fixed batches and steps over them: what the core is tested on."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from unweave.data.in_memory import Resident
from unweave.descent.combine import combine_gradients
from unweave.descent.descend import Phase
from unweave.descent.objective import Objective
from unweave.descent.weighted_sum import OnWeights
from unweave.methods.lur import TERMS
from unweave.problem import Problem
from unweave.split import Part, Split
from unweave.tasks import Batch
from unweave.tasks.classifier import Classifier
from unweave.weights.params import Params
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step, Term

FEATURES, CLASSES = 6, 4
WEIGHT = 0.3
"""The weight of the forget loss; a weight of one would hide a misplaced one."""

MODES: Mapping[str, Callable[..., list[Term]]] = TERMS


def net(
    seed: int = 0, *, dtype: torch.dtype = torch.float64, between: Callable[[], nn.Module] = nn.Tanh
) -> nn.Sequential:
    """Two layers, each weight used once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 12), between(), nn.Linear(12, CLASSES)).to(dtype)


def source(n: int, seed: int, dtype: torch.dtype = torch.float64) -> Resident:
    """Points with labels that a line decides, a fifth of them wrong."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)
    rule = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    wrong = torch.rand(n, generator=generator) < 0.2
    labels = (inputs @ rule).argmax(1)
    return Resident(inputs.to(dtype), torch.where(wrong, (labels + 1) % CLASSES, labels))


def problem(model: nn.Module | None = None, *, n: int = 48, seed: int = 0) -> Problem:
    """A request to forget every fourth example."""
    model = net() if model is None else model
    dtype = next(model.parameters()).dtype
    split = Split(source(n, 1, dtype), range(0, n, 4), source(24, 2, dtype))
    return Problem(Classifier(CLASSES), model, split, torch.Generator().manual_seed(seed))


def batch(of: Problem, ids: Sequence[int] | Tensor) -> Batch:
    """These training examples, always with the same draws."""
    (raw,) = of.split.train.stream([torch.as_tensor(ids)])
    return of.task.draw(raw, torch.Generator().manual_seed(7))


def both(of: Problem) -> dict[Part, list[Batch]]:
    """A whole retain and a whole forget batch."""
    return {"retain": [batch(of, of.split.retain)], "forget": [batch(of, of.split.forget)]}


def step(
    of: Problem,
    batches: Mapping[Part, Sequence[Batch]] | None = None,
    *,
    index: int = 0,
    before: Mapping[int, Params] | None = None,
    runtime: Runtime | None = None,
) -> Step:
    """A step over these batches, by default both parts whole."""
    batches = both(of) if batches is None else batches
    sizes: dict[Part, int] = {part: sum(map(len, some)) for part, some in batches.items()}
    runtime = runtime or Runtime(of.model, of.task, cost=of.cost)
    return Step(of.params, runtime, batches, sizes, index=index, of=100, before=before)


def direction(at: Step, terms: Sequence[Term]) -> Tensor:
    """What the training loop follows, as one vector."""
    return flat(combine_gradients(at, Phase(terms), torch.Generator()))


def flat(params: Mapping[str, Tensor]) -> Tensor:
    """All weights as one vector."""
    return torch.cat([p.detach().flatten() for p in params.values()])


def bits(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Tensors to the bit: zeros have signs, and NaN equals NaN."""
    return {name: value.detach().clone().numpy().tobytes() for name, value in state.items()}


class Vector(nn.Module):
    """A model that is a vector of weights."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.t = nn.Parameter(values.clone())


def quadratic(matrix: Tensor, centre: Tensor) -> Objective:
    r""":math:`\frac12 (t - c)^T M (t - c)` over the weights of a `Vector`."""

    def value(at: Step) -> Tensor:
        away = at.params["t"] - centre
        return away @ matrix @ away / 2

    return Objective(((1.0, OnWeights("quadratic", value)),))


def vector_problem(values: Tensor) -> Problem:
    """A problem whose weights are a vector; its data is never read."""
    of = problem()
    of.model = Vector(values)
    return of


def definite(n: int, seed: int) -> Tensor:
    """A symmetric positive definite matrix."""
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / n + 0.1 * torch.eye(n, dtype=torch.float64)

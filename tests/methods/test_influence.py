"""Influence: one Newton step, against retraining in closed form and against a dense Hessian."""

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from every_family import CLASSES, Toy, problem
from for_each import for_each
from unweave.errors import Failed
from unweave.methods.influence import Influence, solve_system
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier


@dataclass(frozen=True)
class Squares(Classifier):
    """Least squares with the label as a number."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target).square() / 2


def ridge(x: Tensor, y: Tensor, decay: float) -> Tensor:
    """The weights w that minimise the mean of half the squares, and half the decay times |w|^2."""
    return torch.linalg.solve(x.T @ x / len(x) + decay * torch.eye(x.shape[1]).double(), x.T @ y / len(x))


def linear(n_outputs: int = CLASSES) -> Problem:
    """A softmax of a linear model in float64, at weights that are no optimum."""
    of = problem("layernorm", dtype=torch.float64)
    torch.manual_seed(1)
    of.model = nn.Linear(6, n_outputs, dtype=torch.float64)
    return of


def data(of: Problem, part: str) -> tuple[Tensor, Tensor]:
    source, ids = of.split.part(part)
    return source.inputs[0][ids], source.labels[ids]


def flat(of: Problem) -> Tensor:
    return torch.cat([p.detach().flatten() for p in of.params.values()])


def slopes(of: Problem, part: str) -> Tensor:
    """The gradient of each example of a part, [example, weight]."""
    rows = []
    for x, y in zip(*data(of, part), strict=True):
        loss = F.cross_entropy(of.model(x[None]), y[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(of.params.values()))]))
    return torch.stack(rows)


def curvature(of: Problem) -> Tensor:
    """The Hessian of the retain loss, [weight, weight]."""
    x, y = data(of, "retain")
    shapes = {name: p.shape for name, p in of.params.items()}

    def loss(vector: Tensor) -> Tensor:
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        weights = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
        return F.cross_entropy(functional_call(of.model, weights, (x,)), y)

    return hessian(loss, flat(of))


@pytest.mark.parametrize("decay", [0.003, 0.3])
def test_of_a_ridge_regression_it_is_retraining(decay: float):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=generator).double(), torch.randint(3, (40,), generator=generator)
    split = Split(Toy((x,), y), list(range(3, 40, 4)), Toy((x[:2],), y[:2]))
    model = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    model.weight.data = ridge(x, y.double(), decay)[None]
    retrained = ridge(x[split.retain], y[split.retain].double(), decay)
    of = Problem(Squares(3), model, split, torch.Generator().manual_seed(0))
    assert float((flat(of) - retrained).abs().max()) > 1e-3
    Influence(damping=decay, iterations=60, batches=100, batch=7)(of)
    assert float((flat(of) - retrained).abs().max()) < 1e-10


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_influence(alpha: float):
    of = linear()
    before, all_slopes = flat(of), torch.cat([slopes(of, "forget"), slopes(of, "retain")])
    v = all_slopes.mean(0) - slopes(of, "retain").mean(0)
    damped_hessian = curvature(of) + 0.01 * torch.eye(len(before)).double()
    Influence(alpha=alpha, damping=0.01, iterations=60, batches=100, batch=7)(of)
    assert float((flat(of) - before - alpha * torch.linalg.solve(damped_hessian, v)).abs().max()) < 1e-9
    assert of.traces["residual"][-1][1] < 1e-9


def test_the_hessian_may_be_over_a_part_of_the_retain_data():
    some, full = linear(), linear()
    Influence(iterations=60, batches=2, batch=16)(some)
    Influence(iterations=60, batches=3, batch=16)(full)
    assert float((flat(some) - flat(full)).abs().max()) > 1e-4
    retain = -(-47 // 16)
    assert some.cost.gradients == 1 + retain + 2 * 2 * len(some.traces["residual"])
    assert len(some.split.retain) == 47 and len(some.split.forget) == 13


def test_it_leaves_augmentation_and_statistics_alone():
    of = problem("batchnorm", dtype=torch.float64)
    before = copy.deepcopy(of.model)
    Influence(damping=10.0, iterations=3)(of)
    assert all(torch.equal(b, before.get_buffer(name)) for name, b in of.model.named_buffers())
    assert not torch.equal(of.model.fc.weight, before.fc.weight)


# --- the released WoodFisher recursion keeps one vector, which never leaves the line of the first gradient


def run_released_recursion(v: Tensor, examples: Tensor, n: int = 1000) -> Tensor:
    """The direction that the released recursion makes of v, in the order of the examples."""
    direction, factor = v.clone(), examples[0].clone()
    for g in examples[1:]:
        direction = direction - (direction @ g / (n + factor @ g)) * factor
        factor = factor - (factor @ g / (n + factor @ g)) * factor
    return direction


def cosine_of(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b, dim=-1).abs()


def test_the_direction_is_that_of_the_whole_curvature():
    of = linear()
    before, examples = flat(of), slopes(of, "retain")
    all_slopes = torch.cat([slopes(of, "forget"), examples])
    v = all_slopes.mean(0) - examples.mean(0)
    damped_hessian = curvature(of) + 0.01 * torch.eye(len(v)).double()
    Influence(damping=0.01, iterations=60, batches=100)(of)
    ours, theirs = flat(of) - before, run_released_recursion(v, examples)
    assert float(cosine_of(theirs - v, examples[0])) > 1 - 1e-9
    assert float((damped_hessian @ ours - v).norm() / v.norm()) < 1e-8
    assert float((damped_hessian @ theirs - v).norm() / v.norm()) > 0.3
    bent = ours - (ours @ v / (v @ v)) * v  # what the curvature adds to a plain step along v
    assert float(bent.norm() / ours.norm()) > 0.3 and float(cosine_of(bent, examples).max()) < 0.9


# --- conjugate gradients


def solve(matrix: Tensor, v: list[float], iterations: int = 10) -> Tensor:
    solution = solve_system(
        problem("layernorm"),
        lambda x: {"w": matrix @ x["w"]},
        {"w": torch.tensor(v, dtype=torch.float64)},
        iterations,
    )
    return solution["w"]


def test_conjugate_gradients_end_after_as_many_iterations_as_there_are_eigenvalues():
    matrix = torch.diag(torch.tensor([1.0, 4.0, 9.0]).double())
    assert solve(matrix, [1, 1, 1], 3).tolist() == pytest.approx([1, 1 / 4, 1 / 9], abs=1e-12)
    assert solve(matrix, [2, 0, 0]).tolist() == [2, 0, 0]


def test_they_end_before_a_direction_that_bends_downwards():
    matrix = torch.diag(torch.tensor([2.0, -1.0]).double())
    step = (1 + 0.01) / (2 - 0.01)
    assert solve(matrix, [1, 0.1]).tolist() == pytest.approx([step, 0.1 * step], abs=1e-12)
    with pytest.raises(Failed, match="negative curvature along the gradient"):
        solve(matrix, [0, 1])


@for_each(
    ("field", "value"), [("alpha", 0.0), ("damping", -1.0), ("iterations", 0), ("batches", 0), ("batch", 0)]
)
def test_what_makes_no_step_is_refused(field: str, value: float):
    with pytest.raises(ValueError, match=f"{field}.* found"):
        Influence(**{field: value})


def test_iterations_fit_the_budget():
    assert Influence(batches=8).space(160)["iterations"].high == 10
    assert Influence(batches=8).space(1)["iterations"].high == 1

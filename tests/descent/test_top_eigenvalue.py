"""The top curvature, against matrices whose eigenvalues are known."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from for_each import for_each
from smooth import batch, bits, definite, problem, quadratic, step, vector_problem
from unweave.descent.objective import Objective, nll
from unweave.descent.units import top_eigenvalue
from unweave.descent.weighted_sum import OnWeights


def of_matrix(matrix: Tensor, iterations: int = 60) -> float:
    of = vector_problem(torch.ones(len(matrix), dtype=torch.float64))
    centre = torch.zeros(len(matrix), dtype=torch.float64)
    return float(top_eigenvalue(of, quadratic(matrix, centre), step(of, {}), iterations=iterations))


@for_each("seed", range(3))
def test_it_is_the_largest_eigenvalue(seed: int):
    matrix = definite(6, seed)
    assert of_matrix(matrix, 300) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-9)


def test_a_few_iterations_come_from_below_and_close():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 10.0], dtype=torch.float64))
    assert 9.9 < of_matrix(matrix, 8) <= 10


def test_the_sign_does_not_matter_and_large_ones_of_both_do_not_cancel():
    """v' H v is anything between -5 and 5 here, whatever the number of iterations."""
    assert of_matrix(torch.diag(torch.tensor([1.0, -5.0], dtype=torch.float64))) == pytest.approx(5)
    assert of_matrix(torch.diag(torch.tensor([5.0, -5.0, 0.1], dtype=torch.float64))) == pytest.approx(5)


def test_of_a_network_it_is_that_of_the_whole_hessian():
    of = problem(nn.Linear(6, 4).double())
    retain = batch(of, of.split.retain)
    shapes = {name: p.shape for name, p in of.params.items()}
    start = torch.cat([p.detach().flatten() for p in of.params.values()])

    def loss(weights: Tensor) -> Tensor:
        pieces = weights.split([shape.numel() for shape in shapes.values()])
        point = {name: piece.view(shape) for piece, (name, shape) in zip(pieces, shapes.items(), strict=True)}
        return nn.functional.cross_entropy(functional_call(of.model, point, retain.inputs), retain.target)

    hessian = torch.autograd.functional.hessian(loss, start)
    eigenvalue = top_eigenvalue(of, nll("retain"), step(of), iterations=200)
    assert float(eigenvalue) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)


def test_products_are_counted_as_two_gradients_each():
    of = problem()
    top_eigenvalue(of, nll("retain"), step(of), iterations=5)
    assert of.cost.gradients == 1 + 2 * 5


def test_a_linear_loss_has_none():
    of = vector_problem(torch.ones(3, dtype=torch.float64))
    linear = Objective(((1.0, OnWeights("linear", lambda at: (2 * at.params["t"]).sum())),))
    assert float(top_eigenvalue(of, linear, step(of, {}))) == 0


def test_weights_weigh():
    of = problem()
    one = float(top_eigenvalue(of, nll("retain"), step(of), iterations=100))
    third = float(top_eigenvalue(of, 0.3 * nll("retain"), step(of), iterations=100))
    assert third == pytest.approx(0.3 * one, rel=1e-4)


def test_nothing_is_left_behind_in_training_mode():
    of = problem(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4)).double())
    assert of.model.training
    before = bits(of.model.state_dict())
    top_eigenvalue(of, nll("retain"), step(of))
    assert bits(of.model.state_dict()) == before
    assert of.model[1].track_running_stats
    assert all(p.grad is None for p in of.model.parameters())


def test_attention_is_given_a_second_derivative():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.head = nn.Linear(6, 24), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).view(len(x), 1, 3, 8).chunk(3, 2)
            tokens = nn.functional.scaled_dot_product_attention(q + x.mean(), k, v)
            return self.head(tokens.flatten(1))

    of = problem(Attention().double())
    assert float(top_eigenvalue(of, nll("retain"), step(of))) > 0


def test_the_seed_fixes_the_estimate():
    first, second = (float(top_eigenvalue(of, nll("retain"), step(of))) for of in (problem(), problem()))
    assert first == second

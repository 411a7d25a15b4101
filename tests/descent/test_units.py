"""Numbers that are measured at the first step, against arithmetic written out in plain torch."""

import copy
import gc
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from for_each import for_each
from plain import Sgd, ce, clip, dot, grad, moved_apart, recorded, whole
from smooth import CLASSES, FEATURES, both, definite, flat, problem, quadratic, step, vector_problem
from unweave.descent.objective import Objective, bounded, nll
from unweave.descent.units import (
    Along,
    Curvature,
    Ratio,
    curvature_along,
    measure_units,
    refuse_divergence,
    top_eigenvalue,
)
from unweave.methods.lur import LUR
from unweave.split import Part
from unweave.targets import Bounded
from unweave.tasks import Batch
from unweave.weights.params import Params
from unweave.weights.step import Step


def along(matrix: Tensor, start: Tensor) -> float:
    of = vector_problem(start.clone())
    curvature = curvature_along(step(of, {}), quadratic(matrix, torch.zeros_like(start)))
    assert of.model.t.equal(start)  # the weights are back, bit for bit
    return float(curvature)


@for_each("seed", range(3))
def test_the_curvature_along_the_gradient_is_exact_on_a_quadratic(seed: int):
    matrix, start = definite(6, seed), torch.linspace(-1, 2, 6, dtype=torch.float64)
    g = matrix @ start
    curvature = along(matrix, start)
    assert curvature == pytest.approx(float((matrix @ g).norm() / g.norm()), rel=1e-9)
    assert float(g @ matrix @ g / (g @ g)) <= curvature <= float(torch.linalg.eigvalsh(matrix)[-1])


def test_of_a_network_it_is_near_the_product_with_the_hessian_and_costs_two_gradients():
    of = problem()
    (retain,) = both(of)["retain"]
    weights = list(of.params.values())
    g = torch.autograd.grad(
        F.cross_entropy(of.model(*retain.inputs), retain.target), weights, create_graph=True
    )
    direction = [x.detach() for x in g]
    product = torch.autograd.grad(g, weights, direction)
    curvature = float(curvature_along(step(of), nll("retain")))
    assert of.cost.gradients == 2
    assert curvature == pytest.approx(math.sqrt(dot(product, product) / dot(direction, direction)), rel=0.02)
    assert curvature <= 1.02 * float(top_eigenvalue(of, nll("retain"), step(of), iterations=100))


def test_where_there_is_no_gradient_there_is_no_curvature_along_it():
    assert along(definite(3, 0), torch.zeros(3, dtype=torch.float64)) == 0


# --- step sizes and weights


@pytest.mark.parametrize("times", [0.1, 2.0])
def test_step_sizes_are_multiples_of_one_over_the_curvature(times: float):
    matrix, start = definite(4, 1), torch.linspace(-1, 2, 4, dtype=torch.float64)
    of, parabola = vector_problem(start), quadratic(matrix, torch.zeros(4, dtype=torch.float64))
    g = matrix @ start
    size = Along(times)(of, step(of, {}), parabola)
    assert size == pytest.approx(times * float(g.norm() / (matrix @ g).norm()), rel=1e-9)
    top = float(torch.linalg.eigvalsh(matrix)[-1])
    assert Curvature(times)(of, step(of, {}), parabola) == pytest.approx(times / top, rel=0.05)


@pytest.mark.parametrize("unit", [Along(1.0), Curvature(1.0)])
def test_a_step_size_where_nothing_is_curved_is_refused(unit: Along | Curvature):
    of = vector_problem(torch.ones(3, dtype=torch.float64))
    flat_loss = quadratic(torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="no curvature here to measure alpha in: give it as a number"):
        unit(of, step(of, {}), flat_loss)


def test_a_ratio_makes_the_weighted_forget_gradient_that_long():
    of = problem()
    retain, forget = nll("retain"), bounded()
    weight = Ratio(0.3)(step(of), retain, forget)
    assert of.cost.gradients == 2
    g_r, g_u = (flat(step(of).gradient(each)) for each in (retain, forget))
    assert float((weight * g_u).norm() / g_r.norm()) == pytest.approx(0.3, rel=1e-9)


@for_each(("pull", "push"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1e-9)])
def test_a_ratio_to_nothing_is_refused(pull: float, push: float):
    of = vector_problem(torch.ones(2, dtype=torch.float64))
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    losses: list[Objective] = [quadratic(by * eye, zero) for by in (pull, push)]
    with pytest.raises(ValueError, match=r"two gradients that are not zero, .* give the weight as a number"):
        Ratio(0.3)(step(of, {}), *losses)


def test_the_original_does_not_diverge_from_itself_but_for_rounding():
    with pytest.raises(ValueError, match="two gradients that are not zero"):
        whole(LUR(retain="distill", alpha=0.1, weight=Ratio(0.3)), steps=1)(recorded()[0])


@for_each("unit", [Along, Curvature, Ratio])
@for_each("wrong", [-1.0, math.nan, math.inf])
def test_a_multiple_without_sense_is_refused(unit: type[Along | Curvature | Ratio], wrong: float):
    with pytest.raises(ValueError, match=rf"times must be in \[0, inf\), found {wrong}"):
        unit(wrong)


# --- in LUR


def ascent_that_fades(model: torch.nn.Module, batch: Batch) -> Tensor:
    return -F.cross_entropy(model(*batch.inputs), batch.target, reduction="none").log1p().mean()


def ratio(model: torch.nn.Module, f: Batch, r: Batch) -> float:
    """The norm of the retain gradient over that of the forget gradient."""
    g_r, g_u = grad(model, ce(model, r)), grad(model, ascent_that_fades(model, f))
    return math.sqrt(dot(g_r, g_r) / dot(g_u, g_u))


def along_by_difference(model: torch.nn.Module, batch: Batch) -> float:
    """The change of the gradient, a hundredth of the weights down the gradient, relative to the way."""
    shifted_model, g = copy.deepcopy(model), grad(model, ce(model, batch))
    reach = 1e-2 * math.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()) / dot(g, g))
    with torch.no_grad():
        for p, x in zip(shifted_model.parameters(), g, strict=True):
            p.sub_(reach * x)
    differences = [a - b for a, b in zip(grad(shifted_model, ce(shifted_model, batch)), g, strict=True)]
    return math.sqrt(dot(differences, differences) / dot(g, g)) / reach


def test_a_step_with_both_units_measured():
    """Both on the first batches, which the first step then draws and augments anew."""
    of, recorder = recorded()
    method = whole(LUR(alpha=Along(0.4), weight=Ratio(0.6), forget=Bounded()), steps=1, max_norm=1.0)
    plain = copy.deepcopy(of.model)
    method(of)
    f, r, forget, retain = recorder.drawn
    weight, alpha = 0.6 * ratio(plain, f, r), 0.4 / along_by_difference(plain, r)
    start = [p.detach().clone() for p in plain.parameters()]

    def shift(direction: list[Tensor]) -> None:
        with torch.no_grad():
            for p, old, x in zip(plain.parameters(), start, direction, strict=True):
                p.copy_(old - alpha * x)

    shift(grad(plain, ce(plain, retain)))
    v = [weight * x for x in grad(plain, ascent_that_fades(plain, forget))]
    shift(v)
    row = grad(plain, ce(plain, retain))
    shift([torch.zeros_like(x) for x in v])
    Sgd(plain, method.how).step(clip([a + b for a, b in zip(row, v, strict=True)], 1.0))
    assert moved_apart(of.model, plain) < 1e-9
    assert of.cost.gradients == 2 + 1 + 3


@pytest.mark.parametrize("retain", ["nll", "both"])
def test_the_weighted_forget_gradient_is_a_multiple_of_the_retain_gradient(retain: str):
    of, recorder = recorded()
    method = whole(LUR(mode="joint", retain=retain, forget=Bounded(), weight=Ratio(0.5)), steps=1)
    plain = copy.deepcopy(of.model)
    method(of)
    f, r, forget, other = recorder.drawn
    weight = 0.5 * ratio(plain, f, r)  # the original does not diverge from itself
    g_r, g_u = grad(plain, ce(plain, other)), grad(plain, ascent_that_fades(plain, forget))
    Sgd(plain, method.how).step([a + weight * b for a, b in zip(g_r, g_u, strict=True)])
    assert moved_apart(of.model, plain) < 1e-12


def test_eight_power_iterations_on_the_first_batches_come_near_to_sixty():
    of, recorder = recorded()
    method = whole(LUR(alpha=Curvature(0.5), weight=0.3))
    losses, units = (nll("retain"), bounded()), {"weight": method.weight, "alpha": method.alpha}
    weight, alpha = measure_units(of, method.how, None, *losses, **units, mode="nested")
    _, retain = recorder.drawn
    ps = list(of.model.parameters())
    g = torch.cat([x.flatten() for x in torch.autograd.grad(ce(of.model, retain), ps, create_graph=True)])
    v = torch.randn(len(g), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(60):
        v = torch.cat([x.flatten() for x in torch.autograd.grad(g @ (v / v.norm()), ps, retain_graph=True)])
    least = 0.5 / float(v.norm())  # the size of an eigenvalue is found from below
    assert weight == 0.3 and least * (1 - 1e-6) <= alpha < 1.3 * least
    assert of.cost.gradients == 2 * 8 + 1


# --- what mode "lagged" is refused for


def test_the_check_of_lagged_takes_two_gradients_more_and_leaves_the_weights():
    of = problem()
    before = flat(of.params).clone()
    refuse_divergence(step(of), nll("retain"), bounded(), 0.3, 0.01)
    assert of.cost.gradients == 4 and torch.equal(flat(of.params), before)


class Counting:
    """A term that counts the tensors of a shape, and where they lie, once its gradient is there."""

    parts = frozenset[Part]()

    def __init__(self, term: Objective, shape: torch.Size) -> None:
        self.term, self.shape, self.most = term, shape, 0

    def present(self, step: Step) -> bool:
        return True

    def gradient(self, step: Step) -> Params:
        gradient = self.term.gradient(step)
        alive = {e.data_ptr() for e in gc.get_objects() if isinstance(e, Tensor) and e.shape == self.shape}
        self.most = max(self.most, len(alive))
        return gradient


def test_the_check_of_lagged_holds_no_gradient_that_it_does_not_need():
    model = nn.Sequential(nn.Linear(FEATURES, 37), nn.Tanh(), nn.Linear(37, CLASSES)).double()
    of, shape = problem(model), model[0].weight.shape
    retain, forget = Counting(nll("retain"), shape), Counting(bounded(), shape)
    at = step(of)
    refuse_divergence(at, retain, forget, 0.3, 0.01)
    # the weights, the saved ones, and the gradients of both losses before and of the forget loss ahead
    assert max(retain.most, forget.most) == 5
    assert [term for term, _ in at.memory.values()] == [retain]


@for_each("seed", range(3))
def test_the_bound_is_that_of_the_product_of_curvatures_along_the_retain_gradient(seed: int):
    A, B = definite(4, seed), definite(4, seed + 10)
    start, zero = torch.linspace(-1, 2, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    of, g = vector_problem(start), A @ start
    bound = 1 / math.sqrt(0.3 * float((A @ B @ g).norm() / g.norm()))
    at = step(of, {})
    refuse_divergence(at, quadratic(A, zero), quadratic(B, zero), 0.3, 0.69 * bound)
    with pytest.raises(ValueError, match=rf"converges below alpha {bound:.3g} here"):
        refuse_divergence(at, quadratic(A, zero), quadratic(B, zero), 0.3, 0.71 * bound)

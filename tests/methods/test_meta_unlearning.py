"""Meta-unlearning: its gradient against autograd through the written-out relearning, and the joint loss."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from for_each import for_each
from smooth import WEIGHT, batch, definite, direction, net, problem, quadratic, step, vector_problem
from unweave.descent.descend import Descent
from unweave.descent.lookahead import through_steps
from unweave.descent.objective import bounded, nll
from unweave.methods.lur import LUR
from unweave.methods.meta_unlearning import MetaUnlearning
from unweave.problem import Problem
from unweave.targets import Bounded

SHARE = 0.4
"""Neither zero, nor one, nor a half: a misplaced share shows."""

META = MetaUnlearning(mode="exact", alpha=0.2, ahead=SHARE, weight=WEIGHT, forget=Bounded())


def by_hand(of: Problem, alpha: float, relearn: int, *, attacker: str = "forget") -> Tensor:
    """The gradient of J, through the steps of relearning, by autograd alone."""
    weights: dict[str, Tensor] = {**dict(of.model.named_parameters())}
    retain, forget = batch(of, of.split.retain), batch(of, of.split.forget)

    def loss(at, params: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(of.model, params, at.inputs), at.target, reduction="none")

    point = dict(weights)
    for _ in range(relearn):
        inner_loss = loss(forget if attacker == "forget" else retain, point).mean()
        slopes = torch.autograd.grad(inner_loss, list(point.values()), create_graph=True)
        point = {name: p - alpha * g for (name, p), g in zip(point.items(), slopes, strict=True)}
    now, later = (-torch.log1p(loss(forget, each)).mean() for each in (weights, point))
    total = loss(retain, weights).mean() + WEIGHT * ((1 - SHARE) * now + SHARE * later)
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(weights.values()))])


def follow(of: Problem, method: MetaUnlearning) -> Tensor:
    return direction(step(of), method.terms(nll("retain"), method.weight * bounded()))


@pytest.mark.parametrize("relearn", [1, 2, 3])
@for_each("between", [nn.Tanh, nn.Softplus])
def test_exact_is_the_gradient_through_the_relearning(relearn: int, between):
    of = problem(net(between=between))
    gradient = follow(of, replace(META, relearn=relearn))
    assert torch.allclose(gradient, by_hand(of, 0.2, relearn), rtol=0, atol=1e-12)
    for other in (by_hand(of, 0.2, relearn + 1), by_hand(of, 0.2, relearn, attacker="retain")):
        assert not torch.allclose(gradient, other, rtol=0, atol=1e-5)


def test_first_order_leaves_out_the_hessian():
    of, alphas = problem(), (0.02, 0.01, 0.005)
    errors = [
        float((follow(of, replace(META, mode="first-order", alpha=a)) - by_hand(of, a, 1)).norm())
        for a in alphas
    ]
    assert all(1.9 < a / b < 2.1 for a, b in pairwise(errors)), errors


def test_quadratics_have_a_closed_form():
    t, a, b = torch.randn(3, 5, dtype=torch.float64).unbind()
    forget, relearn = definite(5, 1), definite(5, 2)
    term = through_steps(quadratic(forget, a), quadratic(relearn, b), 0.1, 2)
    matrix = torch.eye(5, dtype=torch.float64) - 0.1 * relearn
    endpoint = b + matrix @ matrix @ (t - b)
    gradient = direction(step(vector_problem(t), {}), [term])
    assert torch.allclose(gradient, forget @ (endpoint - a), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["first-order", "exact"])
@for_each("ahead", [0.0, 0.4, 1.0])
def test_without_relearning_it_is_the_joint_loss(mode, ahead: float):
    how = Descent(lr=0.1, steps=4, batch=12, forget_batch=6)
    joint, meta = problem(), problem()
    LUR(mode="joint", weight=WEIGHT, forget=Bounded(), how=how)(joint)
    method = replace(META, mode=mode, alpha=0.0, relearn=2, ahead=ahead, how=how)
    method(meta)
    for name, p in joint.params.items():
        torch.testing.assert_close(meta.params[name], p, rtol=1e-12, atol=1e-14)
    if ahead:
        other = problem()
        replace(method, alpha=0.2)(other)
        assert not torch.allclose(other.params["0.weight"], joint.params["0.weight"], rtol=0, atol=1e-6)


@for_each(("ahead", "relearn", "price"), [(0.0, 3, 2), (0.4, 1, 4), (0.4, 3, 6), (1.0, 3, 5)])
def test_a_step_costs_what_the_table_says(ahead: float, relearn: int, price: int):
    of = problem()
    how = Descent(lr=0.1, steps=3, batch=12, forget_batch=6)
    replace(META, mode="first-order", ahead=ahead, relearn=relearn, how=how)(of)
    assert of.cost.gradients == 3 * price


def forget_loss_after_relearning(of: Problem) -> float:
    """After steps of gradient descent on the forget set."""
    copy = problem(of.model)
    for _ in range(20):
        slopes = step(copy).gradient(nll("forget"))
        with torch.no_grad():
            for name, p in copy.params.items():
                p.sub_(0.2 * slopes[name])
    with torch.no_grad():
        forget = batch(copy, copy.split.forget)
        return float(F.cross_entropy(copy.model(*forget.inputs), forget.target))


def test_what_it_forgets_is_harder_to_relearn_than_after_the_joint_loss():
    how = Descent(lr=0.1, steps=40, batch=36, forget_batch=12)
    losses = []
    for alpha in (0.0, 2.0):
        of = problem()
        MetaUnlearning(alpha=alpha, relearn=3, ahead=0.5, forget=Bounded(), how=how)(of)
        losses.append(forget_loss_after_relearning(of))
    assert losses[1] > losses[0] + 0.05, losses

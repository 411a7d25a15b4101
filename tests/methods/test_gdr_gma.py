"""GDR-GMA: first steps by hand, its weight in closed form, and defects of the released code."""

import copy
import math

import pytest
import torch
from torch import Tensor

from for_each import for_each
from plain import batches, ce, grad, moved_apart, recorded, weights, whole
from unweave.descent.objective import nll
from unweave.methods.gdr_gma import GDRGMA, RectifiedGradient, mean_opposing, remove_opposition
from unweave.problem import Problem
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step


def remove_conflict(a: Tensor, b: Tensor) -> Tensor:
    overlap = float((a * b).sum())
    return a - overlap / float((b * b).sum()) * b if overlap < 0 else a


def test_the_first_steps():
    of, recorder = recorded()
    plain = copy.deepcopy(of.model)
    method = whole(GDRGMA(gamma=9.0, epsilon=0.15), steps=3, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    method(of)
    last_gradient: Tensor | None = None
    conflicts = 0
    for f, r in zip(*batches(of, recorder, method.how), strict=True):
        loss = ce(plain, r)
        g_r, g_f = grad(plain, loss), grad(plain, -ce(plain, f))
        conflicts += sum(float((a * b).sum()) < 0 for a, b in zip(g_r, g_f, strict=True))
        share = 1 / (1 + math.exp(9.0 * (float(loss.detach()) - 0.15)))
        of_r, of_f = (
            [remove_conflict(a, b) for a, b in zip(x, y, strict=True)] for x, y in ((g_r, g_f), (g_f, g_r))
        )
        if last_gradient is not None:  # a pass is one batch here
            of_f[-1] = remove_conflict(of_f[-1], last_gradient)
        last_gradient = g_f[-1]
        with torch.no_grad():
            for p, a, b in zip(weights(plain), of_r, of_f, strict=True):
                p.sub_(method.how.lr * ((1 - share) * a + share * b))
    assert conflicts > 3
    assert moved_apart(of.model, plain) < 1e-12


def step_on(of: Problem) -> Step:
    parts = {}
    for part in ("forget", "retain"):
        source, ids = of.split.part(part)
        parts[part] = of.task.draw(next(iter(source.stream([ids]))), torch.Generator().manual_seed(0))
    sizes = {part: len(batch) for part, batch in parts.items()}
    return Step(of.params, Runtime(of.model, of.task), {p: [b] for p, b in parts.items()}, sizes)


@for_each(("epsilon", "share"), [(1e6, 1.0), (-1e6, 0.0), (None, 0.5)])
def test_the_retain_loss_weighs_the_two(epsilon: float | None, share: float):
    of, _ = recorded()
    retain, forget = step_on(of).batches["retain"][0], step_on(of).batches["forget"][0]
    loss = ce(of.model, retain)
    term = RectifiedGradient(
        nll("retain"), -nll("forget"), 100.0, float(loss.detach()) if epsilon is None else epsilon, 1
    )
    g_r, g_f = grad(of.model, loss), grad(of.model, -ce(of.model, forget))
    for gradient, a, b in zip(term.gradient(step_on(of)).values(), g_r, g_f, strict=True):
        expected = (1 - share) * remove_conflict(a, b) + share * remove_conflict(b, a)
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)


@for_each("angle", [1.6, 2.4, 3.0])
def test_neither_opposes_the_other_as_it_was(angle: float):
    """The released code frees the second from the first as changed, which leaves cos^2 of their overlap."""
    x = torch.tensor([2.0, 0.0], dtype=torch.float64)
    y = 0.3 * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert float(remove_opposition(x, y) @ y) == pytest.approx(0, abs=1e-15)
    assert float(remove_opposition(y, x) @ x) == pytest.approx(0, abs=1e-15)
    assert torch.equal(remove_opposition(x, -y), x)
    assert bool(remove_opposition(x, torch.zeros(2, dtype=torch.float64)).isfinite().all())


def test_averaging_past_gradients_leaves_them_as_they_are():
    gradients = [torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 0.0]), torch.tensor([5.0, 5.0])]
    before = [g.clone() for g in gradients]
    assert mean_opposing(torch.tensor([1.0, 0.0]), gradients).tolist() == [-2.0, 1.0]
    assert mean_opposing(torch.tensor([1.0, 9.0]), gradients[2:]).tolist() == [0.0, 0.0]
    assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))


def test_as_many_past_gradients_are_kept_as_a_pass_has_batches():
    of, _ = recorded()
    term = RectifiedGradient(nll("retain"), -nll("forget"), 100.0, 0.02, 3)
    for _ in range(5):
        term.gradient(step_on(of))
    assert len(term.past) == 3

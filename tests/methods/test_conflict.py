"""Methods that settle a conflict of two gradients: first steps by hand, closed forms, defects of others."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from every_family import Toy, original, problem
from for_each import for_each
from plain import Recorder, Sgd, batches, ce, clip, dot, grad, moved_apart, recorded, weights, whole
from unweave.methods import Method
from unweave.methods.conflict import MGDA, CAGrad, MUNBa, PCGrad, UPGrad
from unweave.methods.simple import FineTune
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier

TIGHT = 1e-12

Rule = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


def mix(a: float, x: list[Tensor], b: float, y: list[Tensor]) -> list[Tensor]:
    return [a * u + b * v for u, v in zip(x, y, strict=True)]


def bisector(r: list[Tensor], f: list[Tensor]) -> list[Tensor]:
    """The sum of the unit vectors, of norm one."""
    mixture = mix(dot(r, r) ** -0.5, r, dot(f, f) ** -0.5, f)
    return clip([1e9 * x for x in mixture], 1.0)


def remove_conflict(r: list[Tensor], f: list[Tensor]) -> list[Tensor]:
    """Each without what opposes the other, added up."""
    overlap = min(0.0, dot(r, f))
    return mix(1 - overlap / dot(r, r), r, 1 - overlap / dot(f, f), f)


def shortest(r: list[Tensor], f: list[Tensor]) -> list[Tensor]:
    """The shortest of a fine row of points between the two, and then of a finer one around it."""
    low, high = 0.0, 1.0
    for _ in range(12):
        grid = torch.linspace(low, high, 101, dtype=torch.float64).tolist()
        sizes = [x * x * dot(r, r) + 2 * x * (1 - x) * dot(r, f) + (1 - x) ** 2 * dot(f, f) for x in grid]
        best = grid[sizes.index(min(sizes))]
        width = (high - low) / 50
        low, high = max(0.0, best - width), min(1.0, best + width)
    return mix(best, r, 1 - best, f)


def averse(r: list[Tensor], f: list[Tensor]) -> list[Tensor]:
    """CAGrad's dual at c = 0.6, by a golden search."""
    mean = mix(0.5, r, 0.5, f)
    radius = 0.6 * dot(mean, mean) ** 0.5

    def dual(x: float) -> float:
        between = mix(x, r, 1 - x, f)
        return dot(between, mean) + radius * dot(between, between) ** 0.5

    low, high, golden = 0.0, 1.0, (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if dual(left) < dual(right) else (left, high)
    between = mix(low, r, 1 - low, f)
    return mix(1.0, mean, radius * dot(between, between) ** -0.5, between)


RULES: dict[str, tuple[Method, float, Rule, float]] = {
    "munba": (MUNBa(), 1.0, bisector, 1e-7),  # torch's clip divides by the norm plus 1e-6
    "pcgrad": (PCGrad(forget_weight=0.7), 0.7, remove_conflict, TIGHT),
    "mgda": (MGDA(forget_weight=0.7), 0.7, shortest, 1e-7),
    "cagrad": (CAGrad(c=0.6, forget_weight=0.7), 0.7, averse, 1e-7),
    "upgrad": (UPGrad(forget_weight=0.7), 0.7, lambda r, f: mix(0.5, remove_conflict(r, f), 0.0, f), TIGHT),
}


def confident() -> tuple[Problem, Recorder]:
    """A model whose gradients of both losses conflict: its logits are large."""
    of, recorder = recorded()
    with torch.no_grad():
        of.model[-1].weight.mul_(12)
        of.model[-1].bias.mul_(12)
    return of, recorder


@pytest.mark.parametrize("start", [recorded, confident])
@for_each("name", RULES)
def test_the_first_steps(name: str, start: Callable[[], tuple[Problem, Recorder]]):
    method, weight, rule, tolerance = RULES[name]
    of, recorder = start()
    plain = copy.deepcopy(of.model)
    method = whole(method, steps=2, lr=0.01, max_norm=1.0 if name == "munba" else None)
    method(of)
    sgd, angles = Sgd(plain, method.how), []
    for f, r in zip(*batches(of, recorder, method.how), strict=True):
        g_r, g_f = grad(plain, ce(plain, r)), [weight * g for g in grad(plain, ce(plain, f, f.other))]
        angles.append(dot(g_r, g_f))
        sgd.step(rule(g_r, g_f))
    assert moved_apart(of.model, plain) < tolerance
    assert (angles[0] < 0) == (start is confident)


def moved_by(of: Problem, before: nn.Module) -> list[Tensor]:
    return [p.detach() - q.detach() for p, q in zip(weights(of.model), weights(before), strict=True)]


@pytest.mark.parametrize("start", [recorded, confident])
def test_a_step_of_munba_has_length_one_whatever_the_losses(start: Callable[[], tuple[Problem, Recorder]]):
    of, _ = start()
    before = copy.deepcopy(of.model)
    whole(MUNBa(), lr=1e-3, max_norm=1.0, weight_decay=0.0)(of)
    change = moved_by(of, before)
    assert dot(change, change) ** 0.5 == pytest.approx(1e-3, rel=1e-5)


def test_munba_lets_no_small_retain_gradient_give_way_to_a_sum():
    """In float32, a hundred times smaller than the other: both losses still fall alike, to first order."""
    recorder = Recorder()
    of = problem("layernorm", scorer=recorder)
    whole(FineTune(), steps=400, lr=0.3, weight_decay=0.0)(of)
    before = copy.deepcopy(of.model)
    method = whole(MUNBa(), lr=1e-3, max_norm=1.0, weight_decay=0.0)
    method(of)
    (f,), (r,) = batches(of, recorder, method.how)
    g_r, g_f = grad(before, ce(before, r)), grad(before, ce(before, f, f.other))
    assert dot(g_r, g_r) ** 0.5 < 1e-2 * dot(g_f, g_f) ** 0.5
    pulls = [-dot(moved_by(of, before), g) / dot(g, g) ** 0.5 for g in (g_r, g_f)]
    assert min(pulls) > 0 and pulls[0] == pytest.approx(pulls[1], rel=1e-2)


def more_to_forget_than_to_retain() -> Problem:
    """Forty examples go, twenty stay."""
    inputs = torch.randn(60, 6, generator=torch.Generator().manual_seed(3))
    data = Toy((inputs,), torch.arange(60) % 4)
    held_out = Toy((inputs[:8],), torch.arange(8) % 4)
    split = Split(data, list(range(40)), held_out)
    return Problem(
        Classifier(4), copy.deepcopy(original("layernorm")), split, torch.Generator().manual_seed(0)
    )


def test_munba_bears_more_forget_data_than_retain_data():
    of = more_to_forget_than_to_retain()
    whole(MUNBa(), steps=None, epochs=1, batch=10, forget_batch=10)(of)
    assert {name: len(curve) for name, curve in of.curves.items()} == {
        "nll(retain)": 2,
        "mislabel(forget)": 4,
    }


def test_an_epoch_of_munba_goes_over_all_retain_data():
    of, _ = recorded()
    whole(MUNBa(), steps=None, epochs=1, batch=6, forget_batch=6)(of)
    lengths = {name: len(curve) for name, curve in of.curves.items()}
    assert lengths["nll(retain)"] == math.ceil(len(of.split.retain) / 6)
    assert lengths["mislabel(forget)"] == math.ceil(len(of.split.forget) / 6) < lengths["nll(retain)"]


def test_cagrad_refuses_a_radius_of_one():
    with pytest.raises(ValueError, match=r"c must be in \[0, 1\), found 1\.0"):
        CAGrad(c=1.0)

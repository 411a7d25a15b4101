"""SFR-on: first steps by hand, its weighting in closed form, and defects of the released code."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from every_family import problem
from for_each import for_each
from plain import STILL, Sgd, ce, clip, grad, moved_apart, recorded, weights, whole
from unweave.methods.sfron import PeriodicAscent, SFRon, WeightedAscent
from unweave.problem import Problem
from unweave.tasks import Batch
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

TIGHT = 1e-12


def part_batches(of: Problem, batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
    """The batches of forget and of retain data, each in their order."""
    forget = [bool(of.split.is_forget[batch.ids].all()) for batch in batches]
    pairs = list(zip(batches, forget, strict=True))
    return [b for b, f in pairs if f], [b for b, f in pairs if not f]


def fisher(model: nn.Module, batches: list[Batch]) -> list[Tensor]:
    squares = [[g.square() for g in grad(model, ce(model, batch))] for batch in batches]
    return [sum(each) / len(squares) for each in zip(*squares, strict=True)]


def ascent_gradient(model: nn.Module, batch: Batch, strength: float) -> list[Tensor]:
    losses = F.cross_entropy(model(batch.inputs[0]), batch.target, reduction="none")
    shares = losses.detach() ** -0.5
    return grad(model, -strength * (shares / shares.sum() * losses).sum())


def test_the_first_steps():
    of, recorder = recorded()
    plain = copy.deepcopy(of.model)
    method = whole(SFRon(every=2, threshold=1.3, clip=0.5), steps=4, batch=12, lr=0.05)
    method(of)
    passes, steps = recorder.drawn[:9], recorder.drawn[9:]
    (f_pass, r_pass), (f_steps, r_steps) = part_batches(of, passes), part_batches(of, steps)
    assert [len(f_pass), len(r_pass), len(f_steps), len(r_steps)] == [2, 7, 2, 4]
    mask = [
        (f + 1e-15) / (r + 1e-15) >= 1.3
        for f, r in zip(fisher(plain, f_pass), fisher(plain, r_pass), strict=True)
    ]
    away, sgd = Sgd(plain, replace(method.how, weight_decay=0.0)), Sgd(plain, method.how)
    for index, retain in enumerate(r_steps):
        if index % 2 == 0:
            strength = 25 * (1 + math.cos(math.pi * index / 4)) / 2
            g = ascent_gradient(plain, f_steps[index // 2], strength)
            away.step(clip([m * x for m, x in zip(mask, g, strict=True)], 0.5))
        sgd.step(grad(plain, ce(plain, retain)))
    assert moved_apart(of.model, plain) < TIGHT


def step_on(of: Problem) -> tuple[Step, Batch]:
    source, ids = of.split.part("forget")
    batch = of.task.draw(next(iter(source.stream([ids]))), torch.Generator().manual_seed(0))
    return Step(of.params, Runtime(of.model, of.task), {"forget": [batch]}, {"forget": len(batch)}), batch


@for_each("power", [0.0, 0.5, 1.0])
def test_the_weighting_is_the_slope_of_a_power_of_the_loss(power: float):
    of, _ = recorded()
    step, batch = step_on(of)
    losses = F.cross_entropy(of.model(batch.inputs[0]), batch.target, reduction="none")
    powers = losses.log() if power == 1 else losses ** (1 - power) / (1 - power)
    expected = grad(of.model, -3.0 * powers.sum() / (losses.detach() ** -power).sum())
    gradient = WeightedAscent(3.0, power).gradient(step)
    for a, b in zip(gradient.values(), expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=TIGHT)


def test_what_is_known_by_heart_is_no_division_by_zero():
    of = problem("layernorm")
    step, batch = step_on(of)
    with torch.no_grad():
        of.model[-1].weight.zero_()
        of.model[-1].bias.copy_(1e4 * F.one_hot(batch.target[0], 4))  # some losses are zero, the others 1e4
    assert all(bool(g.isfinite().all()) for g in WeightedAscent(1.0, 0.5).gradient(step).values())


@for_each("optimizer", ["sgd", "adam", "adamw"])
def test_masked_weights_stay_in_a_step_away(optimizer: str):
    of, _ = recorded("batchnorm")
    method = whole(SFRon(), batch=13, weight_decay=0.5, optimizer=optimizer)
    mask = method.mask(of)
    away = replace(method.how, weight_decay=0.0)
    leave = PeriodicAscent(method, mask, away.optimizer_over(list(of.params.values())), away, of=10)
    before = [p.detach().clone() for p in weights(of.model)]
    leave(of, 0)
    leave(of, 5)
    leave(of, 6)  # no step
    assert len(of.curves["unlearnt(forget)"]) == 2
    for p, m, start in zip(weights(of.model), mask.values(), before, strict=True):
        assert torch.equal(p[m == 0], start[m == 0])
    share = sum(float(m.sum()) for m in mask.values()) / sum(p.numel() for p in before)
    count = sum(int((p != start).sum()) for p, start in zip(weights(of.model), before, strict=True))
    assert 0 < share < 1 and count > 0.5 * share * sum(p.numel() for p in before)


def test_masked_weights_move_with_the_retain_data():
    of, _ = recorded()
    before = copy.deepcopy(of.model)
    whole(SFRon(threshold=3.0), steps=2)(of)
    assert all(not torch.equal(p, q) for p, q in zip(weights(of.model), weights(before), strict=True))


def test_the_mask_is_taken_without_augmentation_in_batches_of_one_size_and_anew_for_each_model():
    of, recorder = recorded()
    whole(SFRon(), lr=STILL, batch=10)(of)
    f_pass, _ = part_batches(of, recorder.drawn[:3])
    assert {len(batch) for batch in f_pass} <= {6, 7}
    for batch in recorder.drawn[:3]:
        assert torch.equal(batch.inputs[0], of.split.train.inputs[0][batch.ids])
    first = SFRon().mask(of)
    with torch.no_grad():
        of.model[0].weight.mul_(-1)
    assert any(not torch.equal(m, first[name]) for name, m in SFRon().mask(of).items())


def test_a_threshold_that_no_weight_reaches_is_refused():
    with pytest.raises(ValueError, match="no weight matters 1e[+]30 times as much"):
        whole(SFRon(threshold=1e30))(recorded()[0])
    for wrong in ({"every": 0}, {"power": 1.5}):
        with pytest.raises(ValueError, match="found"):
            SFRon(**wrong)

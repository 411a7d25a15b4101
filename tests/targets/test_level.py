"""Levels on losses made by hand: a model here is a table from the number of an example to its logits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import every_family
from plain import grad, moved_apart, recorded, whole
from targets.test_targets import HELD_OUT, margins, setting
from unweave.descent.descend import Descent
from unweave.methods.lur import LUR
from unweave.problem import Problem
from unweave.targets.level import RETAINED_CLASSES, HeldOutLevel, Level, match_losses
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

TRAIN, FORGET, CALIBRATION = [0, 1, 0, 1, 0, 1], [0, 1, 2], [0, 1, 0, 1]
HOW = Descent(lr=0.1, steps=1, batch=2)
losses = st.lists(st.floats(0, 20, width=32), min_size=1, max_size=12)


def loss(margin: float) -> float:
    return math.log1p(math.exp(-margin))


def answering(forget_margins: list[float], held_margins: list[float]) -> Problem:
    """Forget and held-out examples with those margins."""
    rows = margins(0, TRAIN, [*forget_margins, 9, 9, 9]) | margins(HELD_OUT, CALIBRATION, held_margins)
    return setting(TRAIN, FORGET, CALIBRATION, rows)


def forget_step(of: Problem) -> Step:
    (raw,) = of.split.train.stream([of.split.forget])
    batch = of.task.draw(raw, of.generator)
    return Step(of.params, Runtime(of.model, of.task), {"forget": [batch]}, {"forget": len(batch)}, index=1)


@given(st.lists(st.floats(0, 20, width=32), min_size=1, max_size=12, unique=True))
def test_equal_sides_leave_every_loss_where_it_is(values: list[float]):
    side = torch.tensor(sorted(values))
    assert torch.allclose(match_losses(side, (side, side)), side, rtol=1e-5, atol=1e-5)


@given(losses, losses, losses)
def test_levels_keep_the_order_and_lie_among_held_out_losses(forget_losses, held_losses, queries):
    sides = torch.tensor(forget_losses).sort().values, torch.tensor(held_losses).sort().values
    levels = match_losses(torch.tensor(queries).sort().values, sides)
    assert bool((levels.diff() >= -1e-5).all())
    assert min(held_losses) - 1e-5 <= float(levels.min()) and float(levels.max()) <= max(held_losses) + 1e-5


@given(losses, losses, losses)
def test_a_level_is_hazens_quantile_at_the_mid_rank(forget, test, queries):
    sides = torch.tensor(forget).sort().values, torch.tensor(test).sort().values
    ranks = [(sum(o < a for o in forget) + sum(o <= a for o in forget)) / (2 * len(forget)) for a in queries]
    expected = np.quantile(np.array(test), ranks, method="hazen")
    assert np.allclose(match_losses(torch.tensor(queries), sides), expected, rtol=1e-4, atol=1e-4)


def test_examples_below_their_level_are_pushed_and_the_others_left_alone():
    of = answering([5.0, 0.2, 3.0], [2.0, -1.0, 0.5, 1.0])
    level = HeldOutLevel(1, HOW)
    level.update(of)
    # three losses in the order of margins 5, 3, 0.2 at the sixths 1, 3, 5 of four: places 1/6, 3/2, 17/6
    held_losses = sorted(map(loss, (2.0, -1.0, 0.5, 1.0)))
    levels = [np.interp(place, range(4), held_losses) for place in (1 / 6, 17 / 6, 1.5)]
    own_losses = level.sides[RETAINED_CLASSES][0][[0, 2, 1]]
    assert np.allclose(level.level(own_losses, torch.tensor([0, 1, 0])), levels)
    step = forget_step(of)
    slopes = step.gradient(level.objective)["rows"]
    is_pushed = [loss(m) < w for m, w in zip((5.0, 0.2, 3.0), levels, strict=True)]
    assert is_pushed == [True, True, True]
    for number, margin in enumerate((5.0, 0.2, 3.0)):  # the derivative of -log(1 + e^-m) by m, over three
        assert float(slopes[number].abs().max()) == pytest.approx(1 / (1 + math.exp(margin)) / 3, rel=1e-5)
    level.sides[RETAINED_CLASSES] = own_losses.sort().values, torch.zeros(4)
    assert float(forget_step(of).gradient(level.objective)["rows"].abs().max()) == 0


def test_the_value_is_that_of_ascent_up_to_the_level():
    of = answering([5.0, 0.2, 3.0], [2.0, -1.0, 0.5, 1.0])
    level = HeldOutLevel(1, HOW)
    level.update(of)
    level.sides = {RETAINED_CLASSES: (torch.tensor([0.0]), torch.tensor([0.1]))}
    (value,) = level.objective.losses(forget_step(of))
    assert float(value.detach()) == pytest.approx(-np.mean([min(loss(m), 0.1) for m in (5.0, 0.2, 3.0)]))


def test_a_class_that_is_gone_should_be_as_unlikely_as_for_the_other_classes():
    # of three classes the last is forgotten whole; held out are two of class 0, one of 1 and one of 2
    train, held_out = [0, 2, 1, 2, 0, 1], [0, 1, 2, 0]
    rows = {i: [0.0, 0.0, 3.0] for i in (1, 3)}
    rows |= {HELD_OUT: [2.0, 0.0, -1.0], HELD_OUT + 1: [0.0, 1.0, -2.0], HELD_OUT + 3: [4.0, 0.0, 0.0]}
    of = setting(train, [1, 3], held_out, rows | {HELD_OUT + 2: [0.0, 0.0, 9.0]}, n_classes=3)
    assert of.split.forgotten_classes == (2,)
    level = HeldOutLevel(1, HOW)
    level.update(of)
    assert list(level.sides) == [2]
    held_losses = [-torch.tensor(rows[HELD_OUT + i]).log_softmax(0)[2] for i in (0, 1, 3)]
    assert torch.allclose(level.sides[2][1], torch.stack(held_losses).sort().values)
    levels = level.level(level.sides[2][0], torch.tensor([2, 2]))
    assert bool((levels > 2).all()) and bool((level.sides[2][0] < 0.2).all())


def test_a_part_of_a_class_is_compared_with_what_is_retained_elsewhere():
    """If a class is forgotten whole, the others are compared with held-out examples of retained classes."""
    train, held_out = [0, 1, 0, 1, 0, 0], [0, 1, 0, 1]
    rows = margins(0, train, [1, 1, 1, 1, 1, 1]) | margins(HELD_OUT, held_out, [2, 7, -1, 7])
    of = setting(train, [0, 1, 3], held_out, rows)
    level = HeldOutLevel(1, HOW)
    level.update(of)
    assert set(level.sides) == {RETAINED_CLASSES, 1}
    assert level.sides[RETAINED_CLASSES][1].tolist() == pytest.approx(sorted([loss(2), loss(-1)]))
    assert level.sides[1][1].tolist() == pytest.approx(sorted([loss(-2), loss(1)]))  # under the label 1


def test_without_held_out_examples_of_another_class_there_is_no_level():
    of = setting([0, 1, 0, 1], [1, 3], [1, 1], {})
    with pytest.raises(ValueError, match="needs calibration examples of classes that are not wholly"):
        HeldOutLevel(1, HOW).update(of)


def test_a_look_leaves_statistics_modes_and_randomness_alone_and_is_charged():
    of = every_family.problem("batchnorm")
    of.model.bn1.eval()
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    modes, state = [m.training for m in of.model.modules()], of.generator.get_state()
    ambient = torch.get_rng_state()
    HeldOutLevel(1, Descent(lr=0.1, steps=1, batch=8, dropout="same")).update(of)
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
    assert [m.training for m in of.model.modules()] == modes
    assert torch.equal(of.generator.get_state(), state) and torch.equal(torch.get_rng_state(), ambient)
    assert (of.cost.gradients, of.cost.examples) == (0, 13 + 20)
    assert all(p.grad is None for p in of.model.parameters())


def test_losses_are_taken_in_the_modes_of_the_descent():
    """In training mode BatchNorm normalises by the batch, as it does where the loss is followed."""
    of = every_family.problem("batchnorm")
    losses_by_norm = {}
    for norm in ("train", "frozen"):
        level = HeldOutLevel(1, Descent(lr=0.1, steps=1, batch=64, norm=norm))
        losses_by_norm[norm], _ = level.losses(of, "forget")
    ids = level.sampled_positions(of, "forget")
    inputs, target = of.split.train.inputs[0][ids], of.split.train.labels[ids]
    for norm, loss in losses_by_norm.items():
        model = every_family.problem("batchnorm").model.train(norm == "train")
        assert torch.allclose(loss, nn.functional.cross_entropy(model(inputs), target, reduction="none"))
    assert not torch.allclose(losses_by_norm["train"], losses_by_norm["frozen"])


def test_it_looks_every_so_many_steps_at_so_many_examples():
    of = every_family.problem("layernorm")
    level = HeldOutLevel(3, HOW, most=5)
    counts = []
    for index in range(7):
        level(of, index)
        counts.append(of.cost.examples)
    assert counts == [10, 10, 10, 20, 20, 20, 30]
    assert torch.equal(level.sampled_positions(of, "forget"), level.sampled_positions(of, "forget"))


def test_joint_to_the_level_is_ascent_of_what_lies_below_it():
    of, recorder = recorded()
    method = whole(LUR(mode="joint", forget=Level(), weight=0.7), steps=1)
    plain = recorded()[0].model
    method(of)
    f, r = recorder.drawn[2:]  # after the first look at either side
    losses = [nn.functional.cross_entropy(plain(b.inputs[0]), b.target, reduction="none") for b in (f, r)]
    test_data = of.split.held_out
    calibration = of.split.calibration
    with torch.no_grad():
        test_losses = nn.functional.cross_entropy(
            plain(test_data.inputs[0][calibration]), test_data.labels[calibration], reduction="none"
        )
    ranks = torch.tensor([(2 * sum(b < a for b in losses[0].tolist()) + 1) / 26 for a in losses[0].tolist()])
    level = torch.tensor(np.quantile(test_losses.numpy(), ranks.numpy(), method="hazen"))
    assert 0 < int((losses[0] < level).sum()) <= 13
    objective = losses[1].mean() - 0.7 * torch.where(losses[0] < level, losses[0], level).mean()
    direction = grad(plain, objective)
    with torch.no_grad():
        for p, g in zip(plain.parameters(), direction, strict=True):
            p.sub_(0.1 * (g + 0.01 * p))
    assert moved_apart(of.model, plain) < 1e-9


def test_a_level_that_is_reached_at_the_start_is_no_error():
    class Same(nn.Module):
        """Answers alike to all."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias.expand(len(x), -1)

    of = every_family.problem("layernorm")
    of.model = Same()
    whole(LUR(alpha=0.1, weight=0.3, forget=Level()), steps=2)(of)
    assert bool(torch.isfinite(of.model.bias).all())

"""Recovery: training on retain data alone, until its last step or until the model is restored."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from for_each import for_each
from plain import STILL, Sgd, ce, grad, moved_apart, recorded
from smooth import both, problem
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.errors import Failed
from unweave.methods import recover
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import AVERAGE, CHECKS, Check, Recover, Restored, descend_until, mean_retain_loss
from unweave.methods.simple import NegGradPlus
from unweave.problem import Problem
from unweave.space import Choice

HOW = Descent(lr=0.01, steps=7, batch=100, stop_every=1)


def test_without_an_end_it_is_training_on_retain_data():
    of, recorder = recorded()
    plain, how = copy.deepcopy(of.model), replace(HOW, lr=0.1, steps=3, schedule="linear", weight_decay=0.01)
    Recover(until=None, how=how)(of)
    sgd = Sgd(plain, how)
    for i, batch in enumerate(recorder.drawn):
        assert sorted(batch.ids.tolist()) == of.split.retain.tolist()
        sgd.step(grad(plain, ce(plain, batch)), 0.1 * (1 - i / 3))
    assert moved_apart(of.model, plain) < 1e-12
    assert of.cost.gradients == 3


@pytest.mark.parametrize("epochs", [1.0, 2.5])
def test_its_length_counts_passes_over_the_retain_data(epochs: float):
    of, _ = recorded()
    Recover(until=None, how=Descent(lr=0.01, epochs=epochs, batch=16))(of)
    assert of.cost.gradients == round(epochs * math.ceil(len(of.split.retain) / 16))


@for_each("count", [0, 3, 9])
def test_a_budget_counts_what_was_spent_before(count: int):
    of, _ = recorded()
    of.cost.gradients = count
    Recover(until=None, budget=10, how=HOW)(of)
    assert of.cost.gradients == 10


@pytest.mark.parametrize("count", [10, 14])
@for_each("until", [None, Restored(1e-6)])
def test_where_nothing_is_left_of_the_budget_nothing_changes(count: int, until: Restored | None):
    of, _ = recorded()
    before = copy.deepcopy(of.model.state_dict())
    of.cost.gradients = count
    Recover(until, budget=10, how=HOW)(of)
    assert of.cost.gradients == count and not of.curves
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_budget_of_nothing_is_refused(wrong: int):
    with pytest.raises(ValueError, match=rf"budget must be in \[1, inf\), found {wrong}"):
        Recover(budget=wrong)


def test_a_search_spends_its_budget_whole():
    space: Mapping = Recover().space(100)
    assert (space["budget"], space["until"]) == (Choice((100,)), Choice((None,)))


# --- until the model is restored


def damage(of: Problem) -> Problem:
    """The same problem, whose original was read before its weights were shrunk."""
    _ = of.original
    with torch.no_grad():
        for p in of.params.values():
            p.mul_(0.5)
    return of


def test_a_model_that_still_knows_the_retain_data_recovers_in_one_step():
    of, _ = recorded()
    Recover(Restored(near=2.0), how=HOW)(of)
    assert of.cost.gradients == 1


def test_a_model_that_does_not_learn_it_again_recovers_for_as_long_as_it_may():
    of, _ = recorded()
    Recover(Restored(near=0.01), how=replace(HOW, lr=STILL))(of)
    assert of.cost.gradients == 7


def test_the_aim_is_the_loss_of_the_original_and_not_of_the_model_as_it_is():
    of = damage(recorded()[0])
    aim = mean_retain_loss(of, of.original, 100)
    assert mean_retain_loss(of, of.model, 100) > 1.05 * aim
    Recover(Restored(1.0), how=replace(HOW, lr=0.05, steps=500))(of)
    assert mean_retain_loss(of, of.model, 100) <= aim and 1 < of.cost.gradients < 500


@pytest.mark.parametrize("budget", [12, 25])
def test_a_budget_is_the_most_also_where_the_loss_stands_still(budget: int):
    of, _ = recorded()
    of.cost.gradients = 2
    Recover(Restored(0.01), budget=budget, how=replace(HOW, lr=STILL))(of)
    assert of.cost.gradients == budget


def descents(monkeypatch: pytest.MonkeyPatch, method: Recover) -> list[tuple[float, str, int | None, int]]:
    """Rate, schedule, most steps and steps taken of every descent of a run."""
    calls: list[tuple[float, str, int | None, int]] = []

    def watched(of: Problem, how: Descent, *phases: Phase) -> int:
        assert how.ema == (AVERAGE if method.how.ema is None else method.how.ema)
        calls.append((how.lr, how.schedule, how.steps, descend(of, how, *phases)))
        return calls[-1][-1]

    monkeypatch.setattr(recover, "descend", watched)
    method(recorded()[0])
    return calls


@pytest.mark.parametrize("ema", [None, 0.0, 0.9])
def test_the_rate_stays_until_the_model_is_restored(monkeypatch: pytest.MonkeyPatch, ema: float | None):
    method = Recover(Restored(2.0), how=replace(HOW, ema=ema, schedule="linear", warmup=0.5))
    assert descents(monkeypatch, method) == [(0.01, "constant", 7, 1)]


def test_the_rate_is_halved_at_a_standstill(monkeypatch: pytest.MonkeyPatch):
    """With a check after every step it is noticed after six: five without progress beside one before."""
    method = Recover(Restored(0.01), how=replace(HOW, lr=STILL, steps=15))
    assert descents(monkeypatch, method) == [
        (STILL, "constant", 15, 6),
        (STILL / 2, "constant", 9, 6),
        (STILL / 4, "constant", 3, 3),
    ]


def test_steps_that_forgetting_left_over_are_not_added_to_recovery():
    of, _ = recorded()
    forgetting = Descent(lr=0.5, steps=200, batch=100, forget_batch=100, stop="forgotten", stop_every=1)
    Pipeline(NegGradPlus(0.5, how=forgetting), Recover(Restored(1e-6), how=HOW))(of)
    steps = len(of.curves["nll(forget)"])
    assert steps < 100
    assert of.cost.gradients == 2 * steps + 7


@pytest.mark.parametrize("every", [1, 4, 1000])
def test_a_standstill_lasts_for_a_pass_over_the_retain_data(monkeypatch: pytest.MonkeyPatch, every: int):
    of, ends = problem(), []
    monkeypatch.setattr(recover, "descend", lambda of, how, phase: ends.append(phase.until) or how.steps)
    how = Descent(lr=0.1, steps=1, batch=1, stop_every=every)
    descend_until(of, how, Phase([nll("retain")]), Restored())
    (check,) = ends
    assert check.patience == max(CHECKS, round(len(of.split.retain) / every))


@for_each(
    ("losses", "is_stalled"),
    [([3.0], False), ([3.0, 2.99, 2.98], True), ([3.0, 2.9, 2.95], False), ([3, 2, 1.99, 1.9, 1.95], False)],
)
def test_a_standstill_is_no_fall_by_a_fiftieth_in_the_last_checks(losses: list[float], is_stalled: bool):
    assert Check(0.1, 7, patience=2, losses=losses).has_stalled == is_stalled


def test_the_trace_says_at_every_check_how_near_the_model_is():
    of, _ = recorded()
    aim = 0.01 * mean_retain_loss(of, of.original, 100)
    Recover(Restored(0.01), how=replace(HOW, lr=STILL))(of)
    rows = of.traces["restored"]
    assert [row[0] for row in rows] == list(range(7)) and rows[-1][1] > 1
    assert rows[-1][1] == pytest.approx(mean_retain_loss(of, of.model, 100) / aim, rel=1e-3)


@for_each("near", [0.5, 1.0, 3.0])
def test_restored_is_a_loss_on_retain_data_near_that_of_the_original(near: float):
    of = problem()
    retain = both(of)["retain"][0]
    with torch.no_grad():
        original_loss = float(F.cross_entropy(of.model(*retain.inputs), retain.target))
        assert mean_retain_loss(of, of.original, 7) == pytest.approx(original_loss)
        check = Check(near * (1 + 1e-9) * original_loss, 7, patience=5)
        assert not check.has_reached and check(of) == check.has_reached == (near >= 1)
        for p in of.model.parameters():
            p.zero_()  # four classes, and nothing known
    assert not Check(math.log(4) - 1e-6, 7, 5)(of) and Check(math.log(4) + 1e-6, 7, 5)(of)


@pytest.mark.parametrize("bias", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_not_waited_for(bias: float):
    of = problem()
    with torch.no_grad():
        list(of.model.parameters())[-1][0] = bias
    with pytest.raises(Failed, match=r"the loss on retain data became nan in evaluation mode"):
        Check(1.0, 7, patience=5)(of)


def test_nothing_is_as_good_as_no_multiple():
    with pytest.raises(ValueError, match=r"near must be in \(0, inf\), found 0"):
        Restored(near=0.0)


def test_what_is_checked_is_the_same_every_time_and_charged():
    of = problem()
    losses = [mean_retain_loss(of, of.model, 5, 10) for _ in range(2)]
    assert losses[0] == losses[1] and of.cost.examples == 20 and of.cost.gradients == 0
    assert losses[0] != mean_retain_loss(of, of.model, 5, 11)


# --- the end of a phase


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_end_of_a_phase_is_asked_of_what_would_be_the_result(ema: float | None):
    of, states = problem(), []

    def until(of: Problem) -> bool:
        states.append({name: p.detach().clone() for name, p in of.params.items()})
        return len(states) == 3

    before = {name: p.detach().clone() for name, p in of.params.items()}
    how = Descent(lr=0.1, steps=20, batch=100, stop_every=2, ema=ema)
    assert descend(of, how, Phase([nll("retain")], until=until)) == 6
    assert len(states) == 3
    for name, p in of.params.items():
        assert torch.equal(p, states[-1][name])
        assert not torch.equal(states[0][name], states[1][name]) and not torch.equal(p, before[name])


@for_each("answers", [[True], [False, True], [False] * 10])
def test_a_phase_ends_when_it_is_told_to_and_the_next_begins(answers: list[bool]):
    of, replies = problem(), iter(answers)
    first, second = Phase([nll("retain")], until=lambda of: next(replies)), Phase([nll("forget")])
    how = Descent(lr=0.01, steps=20, batch=100, stop_every=2)
    steps = min(10, 2 * len(answers))
    assert descend(of, how, first, second) == steps + 10
    assert [len(each) for each in of.curves.values()] == [steps, 10]

"""Settings of LUR in units that are measured at the start, against arithmetic written out in plain torch."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from unweave.measuring import Restored

from plain import STILL, Sgd, ce, clip, dot, grad, moved_apart, recorded, whole
from smooth import both, definite, problem, quadratic, step, vector_problem
from unweave.curvature import curvature_along, top_eigenvalue
from unweave.descend import Descent, Phase, descend
from unweave.methods import METHODS, lur
from unweave.methods.lur import LUR, UNTUNED
from unweave.objective import nll
from unweave.problem import Failed, Problem
from unweave.space import Choice
from unweave.tasks import Batch


def along(matrix: Tensor, start: Tensor) -> float:
    of = vector_problem(start.clone())
    found = curvature_along(step(of, {}), quadratic(matrix, torch.zeros_like(start)))
    assert of.model.t.equal(start)  # the weights are back, bit for bit
    return float(found)


@pytest.mark.parametrize("seed", range(3))
def test_the_curvature_along_the_gradient_is_exact_on_a_quadratic(seed: int):
    matrix, start = definite(6, seed), torch.linspace(-1, 2, 6, dtype=torch.float64)
    g = matrix @ start
    found = along(matrix, start)
    assert found == pytest.approx(float((matrix @ g).norm() / g.norm()), rel=1e-9)
    assert float(g @ matrix @ g / (g @ g)) <= found <= float(torch.linalg.eigvalsh(matrix)[-1])


def test_of_a_network_it_is_near_the_product_with_the_hessian_and_costs_two_gradients():
    of = problem()
    (retain,) = both(of)["retain"]
    weights = list(of.params.values())
    g = torch.autograd.grad(
        F.cross_entropy(of.model(*retain.inputs), retain.target), weights, create_graph=True
    )
    direction = [x.detach() for x in g]
    product = torch.autograd.grad(g, weights, direction)
    found = float(curvature_along(step(of), nll("retain")))
    assert of.cost.gradients == 2
    assert found == pytest.approx(math.sqrt(dot(product, product) / dot(direction, direction)), rel=0.02)
    assert found <= 1.02 * float(top_eigenvalue(of, nll("retain"), step(of), iterations=100))


def test_where_there_is_no_gradient_there_is_no_curvature_along_it():
    assert along(definite(3, 0), torch.zeros(3, dtype=torch.float64)) == 0


def bounded(model: torch.nn.Module, batch: Batch) -> Tensor:
    return -F.cross_entropy(model(*batch.inputs), batch.target, reduction="none").log1p().mean()


def ratio(model: torch.nn.Module, f: Batch, r: Batch) -> float:
    """The norm of the retain gradient over that of the forget gradient."""
    g_r, g_u = grad(model, ce(model, r)), grad(model, bounded(model, f))
    return math.sqrt(dot(g_r, g_r) / dot(g_u, g_u))


def along_by_difference(model: torch.nn.Module, batch: Batch) -> float:
    """The change of the gradient, a hundredth of the weights down the gradient, relative to the way."""
    shifted, g = copy.deepcopy(model), grad(model, ce(model, batch))
    reach = 1e-2 * math.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()) / dot(g, g))
    with torch.no_grad():
        for p, x in zip(shifted.parameters(), g, strict=True):
            p.sub_(reach * x)
    moved = [a - b for a, b in zip(grad(shifted, ce(shifted, batch)), g, strict=True)]
    return math.sqrt(dot(moved, moved) / dot(g, g)) / reach


def test_a_step_with_both_units_measured():
    """Each on batches of its own, which are augmented anew: the weight's first, then the curvature's."""
    of, recorder = recorded()
    method = whole(LUR(redraw=0.0), steps=1, max_norm=1.0)
    method = replace(method, alpha=0.4, alpha_in="along", weight=0.6, weight_in="gradients")
    plain = copy.deepcopy(of.model)
    method(of)
    f, r, _, other, forget, retain = recorder.drawn
    weight, alpha = 0.6 * ratio(plain, f, r), 0.4 / along_by_difference(plain, other)
    start = [p.detach().clone() for p in plain.parameters()]

    def shift(direction: list[Tensor]) -> None:
        with torch.no_grad():
            for p, old, x in zip(plain.parameters(), start, direction, strict=True):
                p.copy_(old - alpha * x)

    shift(grad(plain, ce(plain, retain)))
    v = [weight * x for x in grad(plain, bounded(plain, forget))]
    shift(v)
    row = grad(plain, ce(plain, retain))
    shift([torch.zeros_like(x) for x in v])
    Sgd(plain, method.how).step(clip([a + b for a, b in zip(row, v, strict=True)], 1.0))
    assert moved_apart(of.model, plain) < 1e-9
    assert of.cost.gradients == 2 + 2 + 3


@pytest.mark.parametrize("retain", ["nll", "both"])
def test_the_weighted_forget_gradient_is_a_multiple_of_the_retain_gradient(retain: str):
    of, recorder = recorded()
    method = whole(LUR(mode="joint", retain=retain, redraw=0.0, weight=0.5, weight_in="gradients"), steps=1)
    plain = copy.deepcopy(of.model)
    method(of)
    f, r, forget, other = recorder.drawn
    weight = 0.5 * ratio(plain, f, r)  # the original does not diverge from itself
    g_r, g_u = grad(plain, ce(plain, other)), grad(plain, bounded(plain, forget))
    Sgd(plain, method.how).step([a + weight * b for a, b in zip(g_r, g_u, strict=True)])
    assert moved_apart(of.model, plain) < 1e-12


def test_a_weight_in_units_of_nothing_is_refused():
    """The original does not diverge from itself, but for rounding."""
    of, _ = recorded()
    method = whole(LUR(retain="distill", redraw=0.0, keep=1.0, weight_in="gradients"), steps=1)
    with pytest.raises(ValueError, match=r"gradients that are not zero, .* use weight_in='absolute'"):
        method(of)


def test_an_alpha_in_units_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lur, "curvature_along", lambda step, objective: torch.zeros(()))
    of, _ = recorded()
    with pytest.raises(
        ValueError, match=r"'along' needs a curvature that is not zero: use alpha_in='absolute'"
    ):
        whole(LUR(redraw=0.0, alpha_in="along"), steps=1)(of)


@pytest.mark.parametrize("epochs", [0.0, 1.0, 2.5])
def test_recovery_in_epochs_of_retain_data(epochs: float):
    of, _ = recorded()
    method = LUR(
        mode="joint", redraw=0.0, keep=1.0, weight_in="absolute", recover=epochs, recover_in="epochs"
    )
    replace(method, how=Descent(lr=0.01, steps=2, batch=16))(of)
    assert of.cost.gradients == 2 * 2 + round(epochs * math.ceil(len(of.split.retain) / 16))


def test_a_part_of_a_step_is_refused():
    with pytest.raises(ValueError, match=r"whole number of steps, found 2.5: use recover_in='epochs'"):
        LUR(recover=2.5, recover_in="steps")


def restoring(**changes) -> LUR:
    """Two joint steps, then recovery of at most seven steps that is asked after each."""
    how = Descent(lr=0.01, steps=2, batch=100, forget_batch=100, stop_every=1, schedule="linear")
    method = LUR(mode="joint", redraw=0.0, keep=1.0, weight_in="absolute", recover=7, recover_in="steps")
    return replace(method, until="restored", near=2.0, how=replace(how, **changes))


def test_a_model_that_still_knows_the_retained_data_recovers_in_one_step():
    of, _ = recorded()
    restoring()(of)
    assert of.cost.gradients == 2 * 2 + 1


def test_a_model_that_does_not_learn_it_again_recovers_for_as_long_as_it_may():
    of, _ = recorded()
    replace(restoring(lr=STILL, weight_decay=0.0), near=0.01)(of)
    assert of.cost.gradients == 2 * 2 + 7


def descents(monkeypatch: pytest.MonkeyPatch, method: LUR) -> list[tuple[float, str, int | None, int]]:
    """Rate, schedule, most steps and steps taken of every descent of a run."""
    seen: list[tuple[float, str, int | None, int]] = []

    def watched(of: Problem, how: Descent, *phases: Phase) -> int:
        assert how.ema == (lur.AVERAGE if method.how.ema is None else method.how.ema)
        seen.append((how.lr, how.schedule, how.steps, descend(of, how, *phases)))
        return seen[-1][-1]

    monkeypatch.setattr(lur, "descend", watched)
    method(recorded()[0])
    return seen


@pytest.mark.parametrize("ema", [None, 0.0, 0.9])
def test_the_rate_stays_until_the_model_is_restored(monkeypatch: pytest.MonkeyPatch, ema: float | None):
    assert descents(monkeypatch, restoring(lr=0.01, ema=ema)) == [(0.01, "constant", 2 + 7, 2 + 1)]


def test_the_rate_is_halved_at_a_standstill(monkeypatch: pytest.MonkeyPatch):
    """With a look after every step it is noticed after six: five without progress beside one before."""
    still = replace(restoring(lr=STILL, weight_decay=0.0), near=0.01, recover=15)
    assert descents(monkeypatch, still) == [
        (STILL, "constant", 2 + 15, 2 + 6),
        (STILL / 2, "constant", 9, 6),
        (STILL / 4, "constant", 3, 3),
    ]


def test_steps_that_forgetting_left_over_are_not_added_to_recovery():
    of, _ = recorded()
    forgetting = Descent(lr=0.5, steps=200, batch=100, forget_batch=100, stop="forgotten", stop_every=1)
    method = replace(restoring(), near=1e-6, how=forgetting)
    method(of)
    assert len(of.curves["bounded(forget)"]) < 100
    assert of.cost.gradients == 2 * len(of.curves["bounded(forget)"]) + 7


def test_a_standstill_lasts_for_a_pass_over_the_retained_data():
    of = problem()
    count = len(of.split.retain)
    for batch, every, looks in ((1, 1, count), (1, 4, round(count / 4)), (count, 1, lur.LOOKS)):
        how = Descent(lr=0.1, steps=1, batch=batch, stop_every=every)
        assert replace(LUR(), how=how).restored(of, nll("retain")).patience == looks


@pytest.mark.parametrize(
    ("seen", "stands"),
    [([3.0], False), ([3.0, 2.99, 2.98], True), ([3.0, 2.9, 2.95], False), ([3, 2, 1.99, 1.9, 1.95], False)],
)
def test_a_standstill_is_no_fall_by_a_fiftieth_in_so_many_looks(seen: list[float], stands: bool):
    assert Restored(0.1, 7, patience=2, seen=seen).stands == stands


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_end_of_a_phase_is_asked_of_what_would_be_the_result(ema: float | None):
    of, asked = problem(), []

    def until(of: Problem) -> bool:
        asked.append({name: p.detach().clone() for name, p in of.params.items()})
        return len(asked) == 3

    before = {name: p.detach().clone() for name, p in of.params.items()}
    how = Descent(lr=0.1, steps=20, batch=100, stop_every=2, ema=ema)
    assert descend(of, how, Phase([nll("retain")], until=until)) == 6
    assert len(asked) == 3
    for name, p in of.params.items():
        assert torch.equal(p, asked[-1][name])
        assert not torch.equal(asked[0][name], asked[1][name]) and not torch.equal(p, before[name])


def test_the_trace_says_at_every_look_how_near_the_model_is():
    of, _ = recorded()
    aim = Restored.of(of, Descent(steps=1, batch=100), 0.01, patience=5).loss
    replace(restoring(lr=STILL, weight_decay=0.0), near=0.01)(of)
    rows = of.traces["restored"]
    assert [look for look, *_ in rows] == list(range(7)) and rows[-1][1] > 1
    assert rows[-1][1] == pytest.approx(Restored.mean(of, 100) / aim, rel=1e-3)


@pytest.mark.parametrize("near", [0.5, 1.0, 3.0])
def test_restored_is_a_loss_on_retain_data_near_that_of_the_original(near: float):
    of = problem()
    retain = both(of)["retain"][0]
    restored = Restored.of(of, Descent(steps=1, batch=7), near, patience=5)
    with torch.no_grad():
        own = float(F.cross_entropy(of.model(*retain.inputs), retain.target))
        assert restored.loss == pytest.approx(near * own) and not restored.reached
        assert restored(of) == restored.reached == (near >= 1)
        for p in of.model.parameters():
            p.zero_()  # four classes, and nothing known
    assert not Restored(math.log(4) - 1e-6, 7, 5)(of) and Restored(math.log(4) + 1e-6, 7, 5)(of)


@pytest.mark.parametrize("bias", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_not_waited_for(bias: float):
    of = problem()
    with torch.no_grad():
        list(of.model.parameters())[-1][0] = bias
    with pytest.raises(Failed, match=r"the loss on retain data became nan in evaluation mode"):
        Restored.of(of, Descent(steps=1, batch=7), 1.0, patience=5)
    with pytest.raises(Failed):
        Restored(1.0, 7, patience=5)(of)


def test_nothing_is_as_good_as_a_negative_multiple():
    with pytest.raises(ValueError, match=r"near must be in \(0, inf\), found 0"):
        LUR(near=0.0)


def test_what_is_looked_at_is_the_same_at_every_look_and_charged():
    of = problem()
    found = [Restored.mean(of, 5, 10) for _ in range(2)]
    assert found[0] == found[1] and of.cost.examples == 20 and of.cost.gradients == 0
    assert found[0] != Restored.mean(of, 5, 11)


@pytest.mark.parametrize("answers", [[True], [False, True], [False] * 10])
def test_a_phase_ends_when_it_is_told_to_and_the_next_begins(answers: list[bool]):
    of, asked = problem(), iter(answers)
    first, second = Phase([nll("retain")], until=lambda of: next(asked)), Phase([nll("forget")])
    how = Descent(lr=0.01, steps=20, batch=100, stop_every=2)
    taken = min(10, 2 * len(answers))
    assert descend(of, how, first, second) == taken + 10
    assert [len(each) for each in of.curves.values()] == [taken, 10]


@pytest.mark.parametrize("name", ["lur", "lur-exact", "joint"])
def test_the_registry_holds_the_settings_that_need_no_search(name: str):
    method = METHODS[name]
    assert isinstance(method, LUR)
    assert replace(method, mode="nested") == UNTUNED
    assert (method.alpha_in, method.weight_in, method.until) == ("along", "gradients", "restored")


def test_a_search_spends_its_budget_whole():
    space = UNTUNED.space(100)
    assert (space["recover_in"], space["until"]) == (Choice(("steps",)), Choice(("end",)))

"""LUR in every mode and with targets, against arithmetic written out in plain torch, in float64."""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from for_each import for_each
from plain import Recorder, Sgd, batches, ce, clip, grad, moved_apart, recorded, weights, whole
from unweave.descent.descend import Descent
from unweave.descent.edit import restart
from unweave.methods import METHODS
from unweave.methods.lur import LUR
from unweave.problem import Problem
from unweave.space import Choice, up_to
from unweave.targets import Ascent, Bounded, Clamped, Level, Match, Mislabel, Quantile, Target, Uniform
from unweave.targets.estimators.held_out import held_out_level
from unweave.targets.estimators.proxy import Proxy
from unweave.targets.estimators.quantiles import quantiles

TIGHT = 1e-12


def fresh(family: str = "layernorm") -> Problem:
    return recorded(family)[0]


def lur_direction(
    mode: str, plain: nn.Module, f: Tensor, r: Tensor, losses, alpha: float, weight: float, previous=None
):
    """The direction of a mode, from the definitions; and what `lagged` carries over."""
    names = [n for n, _ in plain.named_parameters()]
    theta = [p.detach().clone().requires_grad_() for p in weights(plain)]

    def at(shift=None, sign=alpha):
        return theta if shift is None else [p - sign * s for p, s in zip(theta, shift, strict=True)]

    def loss(index: int, position) -> Tensor:
        batch = (r, f)[index]
        return losses[index](
            functional_call(plain, dict(zip(names, position, strict=True)), (batch.inputs[0],)), batch
        )

    def g(index: int, position) -> list[Tensor]:
        leaves = [p.detach().clone().requires_grad_() for p in position]
        return list(torch.autograd.grad(loss(index, leaves), leaves))

    g_r = g(0, at())
    match mode:
        case "joint":
            return [a + weight * b for a, b in zip(g_r, g(1, at()), strict=True)], None
        case "first-order":
            return [a + weight * b for a, b in zip(g_r, g(1, at(g_r)), strict=True)], None
        case "exact":
            inner = torch.autograd.grad(loss(0, theta), theta, create_graph=True)
            objective = loss(0, theta) + weight * loss(1, at(inner))
            return list(torch.autograd.grad(objective, theta)), None
    inner = previous if mode == "lagged" and previous is not None else g_r
    v = [weight * x for x in g(1, at(inner))]
    row = g(0, at(v))
    return [a + b for a, b in zip(row, v, strict=True)], row


def nll(output: Tensor, batch) -> Tensor:
    return F.cross_entropy(output, batch.target)


def per_example(output: Tensor, batch) -> Tensor:
    return F.cross_entropy(output, batch.target, reduction="none")


def bounded_loss(output: Tensor, batch) -> Tensor:
    return -per_example(output, batch).log1p().mean()


FORGET_LOSSES: dict[str, tuple[Target, Callable[..., Tensor]]] = {
    "bounded": (Bounded(), bounded_loss),
    "ascent": (Ascent(), lambda output, batch: -per_example(output, batch).mean()),
    "clamped": (Clamped(0.2), lambda output, batch: -per_example(output, batch).clamp(max=0.2).mean()),
    "mislabel": (Mislabel(), lambda output, batch: F.cross_entropy(output, batch.other)),
    "uniform": (Uniform(), lambda output, batch: -output.log_softmax(1).mean(1).mean()),
}


def absolute(**settings) -> LUR:
    """LUR with a step size and a weight that are numbers."""
    return LUR(**{"alpha": 0.05, "weight": 0.3} | settings)


def follow_lur(method: LUR, of: Problem, recorder: Recorder, plain: nn.Module, forget_loss) -> None:
    """Takes the steps that the recorder saw."""
    sgd, previous = Sgd(plain, method.how), None
    for f, r in zip(*batches(of, recorder, method.how), strict=True):
        direction, previous = lur_direction(
            method.mode, plain, f, r, (nll, forget_loss), method.alpha, method.weight, previous
        )
        sgd.step(clip(direction, 1.0))


@pytest.mark.parametrize("forget", FORGET_LOSSES)
@for_each("mode", ["nested", "lagged", "exact", "first-order", "joint"])
def test_lur(mode: str, forget: str):
    of, recorder = recorded()
    target, loss = FORGET_LOSSES[forget]
    method = whole(absolute(mode=mode, forget=target, alpha=0.01), steps=3, max_norm=1.0)
    plain = copy.deepcopy(of.model)
    method(of)
    follow_lur(method, of, recorder, plain, loss)
    assert moved_apart(of.model, plain) < TIGHT


def test_lagged_refuses_what_would_not_converge():
    with pytest.raises(
        ValueError, match=r"mode 'lagged' converges below alpha [\d.e+-]+ here .* found 5: lower alpha"
    ):
        whole(absolute(mode="lagged", alpha=5.0))(fresh())


@pytest.mark.parametrize("mode", ["lagged", "nested"])
def test_what_a_step_costs_and_the_check_of_lagged(mode: str):
    of = fresh()
    whole(absolute(mode=mode, alpha=0.01), steps=3)(of)
    assert of.cost.gradients == {"lagged": 3 * 2 + 1 + 4, "nested": 3 * 3}[mode]


def test_the_default_is_the_first_of_the_registry_and_its_modes_differ_in_nothing_else():
    assert METHODS["lur"] == LUR()
    modes = {"lur-exact": "exact", "lur-lagged": "lagged", "joint": "joint"}
    assert all(METHODS[name] == LUR(mode=mode) for name, mode in modes.items())
    assert METHODS["lur-match"] == LUR(forget=Level())
    assert METHODS["joint-match"] == LUR(mode="joint", forget=Level())


def test_it_is_nine_fields_in_a_short_file():
    names = "mode", "alpha", "weight", "forget", "retain", "where", "rule", "feed", "how"
    assert tuple(field.name for field in fields(LUR)) == names
    assert len(inspect.getsource(inspect.getmodule(LUR)).splitlines()) <= 120


@for_each("wrong", [{"alpha": -0.1}, {"weight": -1.0}, {"alpha": math.nan}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, inf\), found {value}"):
        LUR(**wrong)


def test_a_search_chooses_numbers_and_what_the_target_has_to_choose():
    space = LUR().space(120)
    assert space["forget"] == Choice(("ascent", "bounded", "clamped", "unseen"))
    assert {"alpha", "weight", "how.lr", "how.steps", "how.schedule"} < space.keys()
    assert "alpha" not in LUR(mode="joint").space(120) and "forget" not in LUR(forget=Level()).space(120)
    matching = LUR(forget=Match()).space(120)
    assert matching["forget.proxy.how.steps"] == Choice((24,)) and "forget" not in matching
    assert space["how.steps"] == up_to(40, share=6) and matching["how.steps"] == up_to(32, share=6)
    assert LUR(mode="exact").space(120)["how.steps"] == up_to(60, share=6)


@for_each("mode", ["nested", "lagged", "exact", "first-order", "joint"])
def test_the_longest_run_of_a_search_keeps_to_the_budget(mode):
    problem, longest = fresh(), LUR(mode=mode).space(60)["how.steps"].high
    LUR(mode=mode, alpha=0.01, weight=0.1, how=Descent(lr=0.01, steps=longest))(problem)
    assert 57 <= problem.cost.gradients <= 60


# --- LUR with targets


def shortly(proxy: Proxy) -> Proxy:
    return Proxy(
        proxy.start,
        proxy.amount,
        Descent(lr=0.1, steps=4, batch=100, schedule="cosine", warmup=0.25, weight_decay=0.01),
    )


def test_a_proxy_is_a_short_training_on_retain_data():
    of, recorder = recorded()
    proxy = shortly(Proxy())
    trained = proxy(of)
    plain = recorded()[0].problem_copy(repr(proxy))
    restart(plain)
    sgd = Sgd(plain.model, proxy.how)
    rates = [0.0, 1.0, (1 + math.cos(math.pi / 3)) / 2, (1 + math.cos(2 * math.pi / 3)) / 2]
    for rate, batch in zip(rates, recorder.drawn, strict=True):
        assert sorted(batch.ids.tolist()) == of.split.retain.tolist()
        sgd.step(grad(plain.model, ce(plain.model, batch)), lr=0.1 * rate)
    assert moved_apart(trained, plain.model) < TIGHT
    assert not any(p.requires_grad for p in trained.parameters()) and not trained.training


@for_each("mode", ["nested", "joint", "exact"])
def test_lur_match_with_a_temperature(mode: str):
    of, recorder = recorded()
    method = whole(
        absolute(mode=mode, forget=Match(shortly(Proxy()), sharpen=0.7)),
        steps=2,
        max_norm=1.0,
    )
    plain, teacher = copy.deepcopy(of.model), shortly(Proxy())(fresh())
    method(of)

    def matching(output: Tensor, batch) -> Tensor:
        p = (teacher(batch.inputs[0]) / 0.7).softmax(1)
        return (p * (p.log() - output.log_softmax(1))).sum(1).mean()

    follow_lur(method, of, recorder, plain, matching)
    assert moved_apart(of.model, plain) < TIGHT


def test_joint_match_to_a_table():
    of, recorder = recorded()
    method = whole(absolute(mode="joint", forget=Match(shortly(Proxy()))), steps=2, max_norm=1.0)
    plain, twin = copy.deepcopy(of.model), fresh()
    table = held_out_level(twin, shortly(Proxy())(twin))
    method(of)

    def matching(output: Tensor, batch) -> Tensor:
        return F.kl_div(
            output.log_softmax(1),
            table[batch.ids].double().log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )

    follow_lur(method, of, recorder, plain, matching)
    assert moved_apart(of.model, plain) < 1e-7  # the table is float32


def test_lur_quantile_is_hubers_pull():
    of, recorder = recorded()
    method = whole(absolute(mode="joint", forget=Quantile(proxy=shortly(Proxy()))), steps=2, max_norm=1.0)
    plain, twin = copy.deepcopy(of.model), fresh()
    targets = quantiles(twin, shortly(Proxy())(twin))
    method(of)

    def pulled(output: Tensor, batch) -> Tensor:
        p = output.softmax(1).gather(1, batch.target[:, None])[:, 0]
        gap = (torch.log(p / (1 - p)) - targets[batch.ids]).abs()
        return torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean()

    follow_lur(method, of, recorder, plain, pulled)
    assert moved_apart(of.model, plain) < 1e-6  # margins are float32

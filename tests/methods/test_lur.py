"""LUR in every mode and with every target, against arithmetic written out in plain torch, in float64."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from plain import Recorder, Sgd, batches, ce, clip, grad, moved_apart, recorded, start_of, weights, whole
from unweave.descend import Descent
from unweave.edit import restart
from unweave.methods.lur import LUR
from unweave.problem import Problem
from unweave.targets import Proxy, held_out_level, quantiles

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

    def loss(which: int, position) -> Tensor:
        batch = (r, f)[which]
        return losses[which](
            functional_call(plain, dict(zip(names, position, strict=True)), (batch.inputs[0],)), batch
        )

    def g(which: int, position) -> list[Tensor]:
        moved = [p.detach().clone().requires_grad_() for p in position]
        return list(torch.autograd.grad(loss(which, moved), moved))

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


FORGET_LOSSES = {
    "bounded": lambda output, batch: -per_example(output, batch).log1p().mean(),
    "ascent": lambda output, batch: -per_example(output, batch).mean(),
    "clamped": lambda output, batch: -per_example(output, batch).clamp(max=0.2).mean(),
    "mislabel": lambda output, batch: F.cross_entropy(output, batch.other),
    "uniform": lambda output, batch: -output.log_softmax(1).mean(1).mean(),
}


def follow_lur(method: LUR, of: Problem, recorder: Recorder, plain: nn.Module, forget_loss) -> None:
    """Takes the steps that the recorder saw."""
    sgd, previous = Sgd(plain, method.how), None
    for f, r in zip(*batches(of, recorder, method.how), strict=True):
        direction, previous = lur_direction(
            method.mode, plain, f, r, (nll, forget_loss), method.alpha, method.weight, previous
        )
        sgd.step(clip(direction, 1.0))


@pytest.mark.parametrize("forget", FORGET_LOSSES)
@pytest.mark.parametrize("mode", ["nested", "lagged", "exact", "first-order", "joint"])
def test_lur(mode: str, forget: str):
    of, recorder = recorded()
    method = whole(LUR(mode=mode, forget=forget, cap=0.2, alpha=0.01, redraw=0.0), steps=3, max_norm=1.0)
    plain = copy.deepcopy(of.model)
    method(of)
    follow_lur(method, of, recorder, plain, FORGET_LOSSES[forget])
    assert moved_apart(of.model, plain) < TIGHT


def test_lur_in_units_of_curvature():
    of, recorder = recorded()
    method = whole(LUR(alpha=0.5, alpha_in="curvature", redraw=0.0), steps=1, max_norm=1.0)
    plain = copy.deepcopy(of.model)
    method(of)
    first = next(b for b in recorder.drawn if not bool(of.split.is_forget[b.ids].any()))
    ps = weights(plain)
    g = torch.cat([x.flatten() for x in torch.autograd.grad(ce(plain, first), ps, create_graph=True)])
    v = torch.randn(len(g), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(60):
        v = torch.cat([x.flatten() for x in torch.autograd.grad(g @ (v / v.norm()), ps, retain_graph=True)])
    top = float(v.norm())
    # eight power iterations come near to sixty, so the direction is nearly that of alpha = 0.5 / top
    close = whole(LUR(alpha=0.5 / top, redraw=0.0), steps=1, max_norm=1.0)
    (f,), (r,) = batches(of, recorder, method.how)
    sgd = Sgd(plain, method.how)
    direction, _ = lur_direction(
        "nested", plain, f, r, (nll, FORGET_LOSSES["bounded"]), close.alpha, close.weight
    )
    plain_joint = copy.deepcopy(plain)
    sgd.step(clip(direction, 1.0))
    joint, _ = lur_direction("joint", plain_joint, f, r, (nll, FORGET_LOSSES["bounded"]), 0.0, close.weight)
    Sgd(plain_joint, method.how).step(clip(joint, 1.0))
    assert moved_apart(of.model, plain) < 0.3 * moved_apart(plain_joint, plain)


def test_lagged_refuses_what_would_not_converge():
    with pytest.raises(
        ValueError, match=r"mode 'lagged' converges below alpha [\d.e+-]+ here .* found 5: lower alpha"
    ):
        whole(LUR(mode="lagged", alpha=5.0, redraw=0.0))(fresh())


def test_lur_after_a_redrawing():
    of, recorder = recorded()
    method = whole(LUR(redraw=0.2, alpha=0.05), steps=2, max_norm=1.0)
    plain = start_of(fresh, method)
    method(of)
    follow_lur(method, of, recorder, plain, FORGET_LOSSES["bounded"])
    assert moved_apart(of.model, plain) < TIGHT
    assert sum(
        int((a != b).sum())
        for a, b in zip(weights(start_of(fresh, method)), weights(fresh().model), strict=True)
    ) == round(0.2 * 68)


def test_recovery_goes_on_with_retain_data_under_the_same_schedule_and_momentum():
    of, recorder = recorded()
    method = whole(LUR(mode="joint", redraw=0.0), steps=2, schedule="linear")
    method = replace(method, recover=3)
    plain = copy.deepcopy(of.model)
    method(of)
    drawn, sgd = recorder.drawn, Sgd(plain, method.how)
    forget = set(of.split.forget.tolist())
    assert [set(b.ids.tolist()) <= forget for b in drawn] == [True, False, True, False, False, False, False]
    rates = [0.1 * (1 - i / 5) for i in range(5)]
    for rate, f, r in zip(rates[:2], drawn[:4:2], drawn[1:4:2], strict=True):
        direction, _ = lur_direction(
            "joint", plain, f, r, (nll, FORGET_LOSSES["bounded"]), method.alpha, method.weight
        )
        sgd.step(direction, rate)
    for rate, batch in zip(rates[2:], drawn[4:], strict=True):
        sgd.step(grad(plain, ce(plain, batch)), rate)
    assert moved_apart(of.model, plain) < TIGHT
    assert of.cost.gradients == 2 * 2 + 3


@pytest.mark.parametrize("epochs", [1.0, 2.0])
def test_recovery_follows_a_forgetting_of_so_many_epochs(epochs: float):
    of = fresh()
    LUR(mode="joint", redraw=0.0, recover=5, how=Descent(lr=0.01, epochs=epochs, batch=16))(of)
    assert of.cost.gradients == 2 * epochs * math.ceil(47 / 16) + 5


def test_lur_begins_between_the_original_and_fresh_weights():
    method = whole(LUR(mode="joint", redraw=0.0, keep=0.4))
    twin = fresh()
    original = copy.deepcopy(twin.model)
    drawn = twin.fresh()
    for start, old, new in zip(*map(weights, (start_of(fresh, method), original, drawn)), strict=True):
        assert torch.allclose(start, 0.4 * old + 0.6 * new, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 1.5}, r"keep must be in \[0, 1\], found 1.5"),
        ({"keep": -0.1}, "found -0.1"),
        ({"recover": -1}, r"recover must be in \[0, inf\), found -1"),
        ({"refresh": 0}, r"refresh must be in \[1, inf\), found 0"),
        ({"probe": -2}, r"probe must be in \[0, inf\), found -2"),
    ],
)
def test_settings_without_sense_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LUR(**changes)


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
    plain = recorded()[0].beside(repr(proxy))
    restart(plain)
    sgd = Sgd(plain.model, proxy.how)
    rates = [0.0, 1.0, (1 + math.cos(math.pi / 3)) / 2, (1 + math.cos(2 * math.pi / 3)) / 2]
    for rate, batch in zip(rates, recorder.drawn, strict=True):
        assert sorted(batch.ids.tolist()) == of.split.retain.tolist()
        sgd.step(grad(plain.model, ce(plain.model, batch)), lr=0.1 * rate)
    assert moved_apart(trained, plain.model) < TIGHT
    assert not any(p.requires_grad for p in trained.parameters()) and not trained.training


@pytest.mark.parametrize("mode", ["nested", "joint", "exact"])
def test_lur_match_with_a_temperature(mode: str):
    of, recorder = recorded()
    method = whole(
        LUR(mode=mode, forget="match", sharpen=0.7, alpha=0.05, redraw=0.0, proxy=shortly(Proxy())),
        steps=2,
        max_norm=1.0,
    )
    plain, teacher = copy.deepcopy(of.model), method.proxy(fresh())
    method(of)

    def matching(output: Tensor, batch) -> Tensor:
        p = (teacher(batch.inputs[0]) / 0.7).softmax(1)
        return (p * (p.log() - output.log_softmax(1))).sum(1).mean()

    follow_lur(method, of, recorder, plain, matching)
    assert moved_apart(of.model, plain) < TIGHT


def test_joint_match_to_a_table():
    of, recorder = recorded()
    method = whole(
        LUR(mode="joint", forget="match", redraw=0.2, proxy=shortly(Proxy())), steps=2, max_norm=1.0
    )
    plain, twin = start_of(fresh, method), fresh()  # the table is made before the redrawing
    table = held_out_level(twin, method.proxy(twin))
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
    method = whole(
        LUR(mode="joint", forget="quantile", redraw=0.0, proxy=shortly(Proxy())), steps=2, max_norm=1.0
    )
    plain, twin = copy.deepcopy(of.model), fresh()
    targets = quantiles(twin, method.proxy(twin))
    method(of)

    def pulled(output: Tensor, batch) -> Tensor:
        p = output.softmax(1).gather(1, batch.target[:, None])[:, 0]
        gap = (torch.log(p / (1 - p)) - targets[batch.ids]).abs()
        return torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean()

    follow_lur(method, of, recorder, plain, pulled)
    assert moved_apart(of.model, plain) < 1e-6  # margins are float32

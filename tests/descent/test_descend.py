"""The one training loop: every setting against a loop written out, or by what it must leave alone."""

import copy
import gc
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from math import comb

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from for_each import for_each
from smooth import CLASSES, FEATURES, MODES, WEIGHT, batch, bits, flat, net, problem, source, step
from unweave.data import Raw
from unweave.data.in_memory import Resident
from unweave.descent.batches import step_batches
from unweave.descent.combine import combine_gradients
from unweave.descent.descend import Descent, Phase, descend, training_mode
from unweave.descent.importance import match_names, top
from unweave.descent.lookahead import Lookahead, ReusedGradient, nested
from unweave.descent.objective import bounded, clamped, l1, mislabel, nll, on
from unweave.descent.optimizer_state import TrainState
from unweave.errors import Failed
from unweave.methods.lur import TERMS
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks import Batch
from unweave.tasks.classifier import Classifier
from unweave.weights.step import Step


class Recorder(Classifier):
    """A classifier's task that remembers what it drew."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(n_classes)
        object.__setattr__(self, "drawn", [])

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        self.drawn.append(super().draw(raw, generator))
        return self.drawn[-1]


def record_batches(model: nn.Module | None = None, **settings) -> tuple[Problem, list[Batch]]:
    """A problem and the batches that it will have drawn, in order."""
    of = problem(model, **settings)
    of.task = Recorder(4)
    return of, of.task.drawn


def ce(model: nn.Module, examples: Batch) -> Tensor:
    return F.cross_entropy(model(*examples.inputs), examples.target)


def distance_between(a: Problem, b: nn.Module) -> float:
    return max(
        float((p - q).detach().abs().max()) for p, q in zip(a.model.parameters(), b.parameters(), strict=True)
    )


class Kept:
    """A factory of optimizers that keeps what it made, and the rates of every step."""

    def __init__(self, make) -> None:
        self.make, self.rates = make, []

    def __call__(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        self.optimizer = self.make(weights)
        self.optimizer.register_step_pre_hook(
            lambda opt, *_: self.rates.append([g["lr"] for g in opt.param_groups])
        )
        return self.optimizer


def sgd(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, 0.1, 0.9, weight_decay=0.05)


# --- the loop against one written out


@for_each(
    ("name", "plain"),
    [
        ("sgd", lambda ps: torch.optim.SGD(ps, 0.05, 0.8, weight_decay=0.01)),
        ("adam", lambda ps: torch.optim.Adam(ps, 0.05, weight_decay=0.01)),
        ("adamw", lambda ps: torch.optim.AdamW(ps, 0.05, weight_decay=0.01)),
        ("adafactor", lambda ps: torch.optim.Adafactor(ps, 0.05, eps=(1e-18, 1e-3), weight_decay=0.01)),
    ],
)
def test_it_is_the_loop_that_one_writes(name, plain):
    of, batches = record_batches()
    by_hand = copy.deepcopy(of.model)
    how = Descent(lr=0.05, steps=7, batch=10, forget_batch=4, optimizer=name, momentum=0.8, weight_decay=0.01)
    assert descend(of, how, Phase([nll("retain") + WEIGHT * bounded()])) == 7
    optimizer = plain(list(by_hand.parameters()))
    for f, r in zip(batches[::2], batches[1::2], strict=True):
        optimizer.zero_grad()
        forgetting = -F.cross_entropy(by_hand(*f.inputs), f.target, reduction="none").log1p().mean()
        (ce(by_hand, r) + WEIGHT * forgetting).backward()
        optimizer.step()
    assert distance_between(of, by_hand) < 1e-12
    assert distance_between(of, net()) > 0.01


def test_two_terms_are_their_sum_and_a_rule_is_a_rule():
    together, by_rule, by_pcgrad = problem(), problem(), problem()
    how = Descent(lr=0.05, steps=5, batch=10, forget_batch=4)
    a, b = nll("retain"), WEIGHT * bounded()
    descend(together, how, Phase([a + b]))
    descend(by_rule, how, Phase([a, b]))
    descend(by_pcgrad, how, Phase([a, b], rule="pcgrad"))
    assert distance_between(together, by_rule.model) < 1e-14
    assert distance_between(by_pcgrad, by_rule.model) > 1e-4


def test_one_step_of_a_rule_is_the_rule():
    of, batches = record_batches()
    start = flat(of.params)
    descend(
        of, Descent(lr=0.1, steps=1, momentum=0.0), Phase([nll("retain"), -nll("forget")], rule="project")
    )
    f, r = batches
    model = net()
    weights = list(model.parameters())
    g_r = torch.cat([g.flatten() for g in torch.autograd.grad(ce(model, r), weights)])
    g_f = torch.cat([g.flatten() for g in torch.autograd.grad(-ce(model, f), weights)])
    assert float(g_r @ g_f) < 0
    expected = start - 0.1 * (g_r - (g_r @ g_f) / (g_f @ g_f) * g_f)
    assert torch.allclose(flat(of.params), expected, rtol=0, atol=1e-14)


def test_a_users_own_rule_is_used():
    by_rule, by_sum = problem(), problem()
    how = Descent(lr=0.05, steps=3, batch=10, forget_batch=4)
    terms = [nll("retain"), -nll("forget")]
    descend(by_rule, how, Phase(terms, rule=lambda gramian, generator: gramian.new_tensor([0.5, 0.0])))
    descend(by_sum, how, Phase([0.5 * nll("retain"), 0.0 * nll("forget")], idle=True))
    assert distance_between(by_rule, by_sum.model) < 1e-14


def test_a_users_own_optimizer_is_used():
    optimizer_factory = Kept(lambda weights: torch.optim.Rprop(weights, 0.03))
    of, batches = record_batches()
    by_hand = copy.deepcopy(of.model)
    descend(of, Descent(steps=4, schedule="cosine"), Phase([nll("retain")]), optimizer=optimizer_factory)
    plain = torch.optim.Rprop(by_hand.parameters(), 0.03)
    for r in batches:
        plain.zero_grad()
        ce(by_hand, r).backward()
        plain.step()
    assert distance_between(of, by_hand) < 1e-12
    assert optimizer_factory.rates[0] == [0.03]


def test_groups_keep_the_ratio_of_their_rates():
    factory = Kept(
        lambda ws: torch.optim.SGD([{"params": ws[:2], "lr": 0.1}, {"params": ws[2:], "lr": 0.01}])
    )
    descend(problem(), Descent(steps=4, schedule="linear"), Phase([nll("retain")]), optimizer=factory)
    assert factory.rates == [[pytest.approx(0.1 * f), pytest.approx(0.01 * f)] for f in (1, 0.75, 0.5, 0.25)]


def test_steps_of_adafactor_do_not_depend_on_the_size_of_a_gradient():
    """As in the paper, also where mean squares are below torch's own eps, as those of denoisers are."""
    draw = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(2, 3, 4, 4, generator=draw), torch.randn(2, 3, 4, 4, generator=draw)
    gradient[0] *= 0.1
    gradient[1, 0, 0] = 0  # a masked row
    moves = []
    for size in (1.0, 1e-6):
        p = nn.Parameter(start.clone())
        update = Descent(lr=0.01, steps=1, optimizer="adafactor").optimizer_over([p])
        p.grad = size * gradient
        update.step()
        moves.append(p.detach() - start)
    assert torch.allclose(moves[0], moves[1], rtol=1e-3, atol=1e-7)
    assert float(moves[0].norm() / start.norm()) == pytest.approx(0.01, rel=0.1)
    assert not moves[0][1, 0, 0].any() and moves[0].isfinite().all()


def test_its_states_are_rows_and_columns():
    p = nn.Parameter(torch.ones(64, 32))
    update = Descent(steps=1, optimizer="adafactor").optimizer_over([p])
    p.grad = torch.ones_like(p)
    update.step()
    assert sum(each.numel() for each in update.state[p].values() if isinstance(each, Tensor)) == 64 + 32 + 1


class Counter(torch.optim.SGD):
    """Plain gradient steps that count the tensors of the shape of the first weight, and where they lie."""

    def step(self, closure=None):
        shape, self.alive = self.param_groups[0]["params"][0].shape, set()
        for each in gc.get_objects():
            if type(each) in (Tensor, nn.Parameter) and each.shape == shape:
                self.alive.add(each.data_ptr())
        return super().step(closure)


# the weight and the sum; a lookahead keeps the weights, and `lagged` a gradient
LIVE = {"joint": 2, "nested": 3, "lagged": 4}


@for_each("mode", LIVE)
def test_an_update_holds_no_gradient_that_nobody_needs(mode: str):
    model = nn.Sequential(nn.Linear(FEATURES, 37), nn.Tanh(), nn.Linear(37, CLASSES)).double()
    of, optimizers = problem(model), []

    def optimizer(weights: list[nn.Parameter]) -> Counter:
        optimizers.append(Counter(weights, 0.01))
        return optimizers[0]

    phase = Phase(TERMS[mode](nll("retain"), WEIGHT * bounded(), 0.1))
    descend(of, Descent(steps=3), phase, optimizer=optimizer)
    assert len(optimizers[0].alive) == LIVE[mode]
    assert all(p.grad is None for p in of.params.values())


# --- length and rate


@for_each(("feed", "per_epoch"), [("paired", 4), ("longest", 4), ("shortest", 3), ("sequential", 7)])
def test_epochs_are_counted_as_the_feed_has_them(feed, per_epoch):
    how = Descent(lr=0.01, epochs=2, batch=10, forget_batch=4)  # 36 retain and 12 forget examples
    assert descend(problem(), how, Phase([nll("retain"), bounded()], feed=feed)) == 2 * per_epoch
    half = Descent(lr=0.01, epochs=0.5, batch=10, forget_batch=4)
    assert descend(problem(), half, Phase([nll("retain"), bounded()], feed=feed)) == round(per_epoch / 2)


def test_the_rate_follows_the_schedule_after_a_linear_warm_up():
    expected = {
        "constant": [0, 0.5, 1, 1, 1, 1],
        "linear": [0, 0.5, 1, 0.75, 0.5, 0.25],
        "cosine": [0, 0.5, *((1 + math.cos(math.pi * x)) / 2 for x in (0, 0.25, 0.5, 0.75))],
    }
    for schedule, rates in expected.items():
        factory = Kept(sgd)
        descend(
            problem(),
            Descent(steps=6, warmup=1 / 3, schedule=schedule),
            Phase([nll("retain")]),
            optimizer=factory,
        )
        assert [rate for (rate,) in factory.rates] == pytest.approx([0.1 * r for r in rates])


@for_each("schedule", ["constant", "linear", "cosine"])
def test_without_a_warm_up_the_rate_starts_whole(schedule):
    how = Descent(steps=1, schedule=schedule)
    assert how.rate(0.0) == 1
    assert 0 <= how.rate(0.999) <= 1


BAD = {
    r"lr must be in \(0, inf\), found 0": {"lr": 0.0, "steps": 1},
    r"steps must be in \[1, inf\), found -1": {"steps": -1},
    r"epochs must be in \(0, inf\), found 0": {"epochs": 0.0},
    r"micro_batch must be in \[1, inf\), found 0": {"steps": 1, "micro_batch": 0},
    r"forget_batch must be in \[1, inf\), found 0": {"steps": 1, "forget_batch": 0},
    r"max_norm must be in \(0, inf\], found nan": {"steps": 1, "max_norm": math.nan},
    r"warmup must be in \[0, 1\), found 1": {"steps": 1, "warmup": 1.0},
    r"ema must be in \[0, 1\), found 1.5": {"steps": 1, "ema": 1.5},
    r"momentum must be in \[0, 1\), found -0.1": {"steps": 1, "momentum": -0.1},
    r"weight_decay must be in \[0, inf\), found -1": {"steps": 1, "weight_decay": -1.0},
    "either steps or epochs, found steps=None, epochs=None": {},
    "either steps or epochs, found steps=3, epochs=1": {"steps": 3, "epochs": 1.0},
}  # fmt: skip


@for_each("message", BAD)
def test_bad_settings_are_named_with_what_was_found(message: str):
    with pytest.raises(ValueError, match=message):
        Descent(**BAD[message])


@for_each(
    ("field", "choices"),
    [
        ("optimizer", "'sgd', 'adam', 'adamw', 'adamw8bit', 'adafactor'"),
        ("schedule", "'constant', 'cosine', 'linear'"),
        ("norm", "'train', 'frozen'"),
        ("dropout", "'off', 'same'"),
        ("precision", "'fp32', 'bf16'"),
        ("stop", "'never', 'forgotten'"),
    ],
)
def test_an_unknown_choice_is_no_silent_default(field: str, choices: str):
    how = Descent(steps=1)
    object.__setattr__(how, field, "sdg")  # at construction these tests check types before the library does
    with pytest.raises(ValueError, match=f"{field} must be one of {choices}, found 'sdg'"):
        how.__post_init__()


def test_a_descent_round_trips_through_its_repr():
    how = Descent(lr=0.1, steps=3, schedule="cosine", unused=("a",))
    assert eval(repr(how)) == how


# --- micro-batches


def images(n: int, seed: int) -> Resident:
    pixels = torch.randint(
        0, 256, (n, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return Resident(pixels, torch.arange(n) % 4, mean=(0.5,), std=(0.25,), crop=1, flip=True)


class Double(nn.Module):
    """Takes the float32 that augmentation makes of images to float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def make_augmented_problem() -> Problem:
    torch.manual_seed(0)
    model = nn.Sequential(Double(), nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4)).double()
    split = Split(images(40, 1), range(0, 40, 4), images(12, 2))
    return Problem(Classifier(4), model, split, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", MODES)
@for_each("make", [problem, make_augmented_problem])
def test_micro_batches_are_whole_batches(mode: str, make):
    """Also where labels are drawn and images augmented: what is drawn belongs to the example."""
    full, split_run = make(), make()
    for of, micro in ((full, None), (split_run, 3)):
        terms = MODES[mode](nll("retain"), WEIGHT * mislabel(), 0.1)
        descend(of, Descent(lr=0.05, steps=4, batch=11, forget_batch=5, micro_batch=micro), Phase(terms))
    assert distance_between(split_run, full.model) < 1e-12
    assert split_run.curves.keys() == full.curves.keys()
    for name, curve in full.curves.items():
        assert split_run.curves[name] == pytest.approx(curve, abs=1e-12)
    assert split_run.cost.gradients == full.cost.gradients
    assert split_run.cost.examples == full.cost.examples


def test_no_forward_pass_is_larger_than_a_micro_batch():
    of, sizes = problem(), []
    of.model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    descend(of, Descent(lr=0.01, steps=2, batch=10, micro_batch=4), Phase([nll("retain")]))
    assert sizes == [4, 4, 1] * 2  # 36 examples are 4 batches of 9


# --- clip, EMA, stop


def test_the_combined_gradient_is_clipped():
    free, clipped_run = problem(), problem()
    start = flat(free.params)
    terms = [nll("retain"), -nll("forget")]
    descend(free, Descent(lr=1.0, steps=1, momentum=0.0), Phase(terms))
    descend(clipped_run, Descent(lr=1.0, steps=1, momentum=0.0, max_norm=1e-3), Phase(terms))
    free_step, clipped_step = flat(free.params) - start, flat(clipped_run.params) - start
    assert float(clipped_step.norm()) == pytest.approx(1e-3, rel=1e-2)
    assert torch.allclose(clipped_step / clipped_step.norm(), free_step / free_step.norm(), atol=1e-10)
    loose_run = problem()
    descend(loose_run, Descent(lr=1.0, steps=1, momentum=0.0, max_norm=1e3), Phase(terms))
    assert bits(loose_run.model.state_dict()) == bits(free.model.state_dict())


def test_the_average_of_the_weights_is_the_result():
    of, positions = problem(), []
    watch = lambda of, index: positions.append(flat(of.params).clone())  # noqa: E731
    descend(of, Descent(lr=0.1, steps=4, ema=0.7), Phase([nll("retain")], watch=watch))
    plain = problem()
    descend(plain, Descent(lr=0.1, steps=4), Phase([nll("retain")]))
    average = positions[0]
    decays = [1 / 10, 2 / 11, 3 / 12, 4 / 13]
    for decay, position in zip(decays, [*positions[1:], flat(plain.params)], strict=True):
        average = decay * average + (1 - decay) * position
    assert torch.allclose(flat(of.params), average, rtol=0, atol=1e-14)


def test_the_average_of_weights_of_few_digits_is_not_rounded_away():
    positions: list[Tensor] = []
    watch = lambda of, index: positions.append(flat(of.params).double())  # noqa: E731
    for ema, watcher in ((None, watch), (0.95, None)):
        of = problem(net().to(torch.bfloat16))
        how = Descent(lr=0.05, steps=60, ema=ema, momentum=0.0)
        descend(of, how, Phase([l1(lambda progress: 0.1)], watch=watcher))
        positions.append(flat(of.params).double())
    average, *steps, final = positions
    for before, position in enumerate(steps):
        decay = (1 + before) / (10 + before)
        average = decay * average + (1 - decay) * position
    assert all(p.dtype == torch.bfloat16 for p in of.params.values())
    assert torch.allclose(final, average, rtol=0.004, atol=1e-6)


def test_weights_are_back_when_a_question_to_their_average_raises():
    of, positions = problem(), []

    def until(of: Problem) -> bool:
        raise ZeroDivisionError

    watch = lambda of, index: positions.append(flat(of.params).clone())  # noqa: E731
    for ends in (None, until):
        of = problem()
        with suppress(ZeroDivisionError):
            descend(
                of,
                Descent(lr=0.1, steps=3, stop_every=2, ema=0.5),
                Phase([nll("retain")], watch=watch, until=ends),
            )
    assert torch.equal(flat(of.params), positions[2])


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_a_short_average_keeps_next_to_nothing_of_its_start(decay: float):
    # n steps of (1 + k) / (10 + k) leave n! 9! / (n + 9)! of it, a constant decay of 0.9999 nearly all
    weight, average = nn.Parameter(torch.zeros(1).double()), {"w": torch.ones(1).double()}
    moving = TrainState({"w": weight}, torch.optim.SGD([weight], 0.1), average)
    for before in range(20):
        moving.follow_average(decay, before)
    early = 1 / comb(12, 9)  # at the third step the decay is 1/4, at the fourth 4/13 and above 0.3
    expected = 1 / comb(29, 9) if decay > 0.9 else early * 0.3**17
    assert float(average["w"]) == pytest.approx(expected, rel=1e-12)
    assert float(average["w"]) < 1e-6


def test_the_average_goes_on_over_phases():
    def average_of(*shares: float) -> torch.Tensor:
        of = problem()
        phases = [Phase([l1(lambda progress: 0.1)], share=share) for share in shares]
        descend(of, Descent(lr=0.1, steps=6, ema=0.99, momentum=0.0), *phases)
        return flat(of.params)

    assert torch.equal(average_of(1.0), average_of(1.0, 1.0))


def test_it_stops_once_forget_data_is_no_better_than_strange_data():
    fitted_problem = problem()
    descend(fitted_problem, Descent(lr=0.3, steps=150), Phase([nll("mixed")]))
    how = Descent(lr=0.05, steps=200, max_norm=1.0, stop="forgotten", stop_every=5)

    def mean(of: Problem, part) -> float:
        data, ids = of.split.part(part)
        (raw,) = data.stream([ids])
        return float(F.cross_entropy(of.model(*raw.inputs), raw.label).detach())

    assert mean(fitted_problem, "forget") < mean(fitted_problem, "calibration")
    steps = descend(fitted_problem, how, Phase([-nll("forget")]))
    assert 0 < steps < 200
    assert steps % 5 == 0
    assert mean(fitted_problem, "forget") >= mean(fitted_problem, "calibration")
    assert descend(fitted_problem, how, Phase([-nll("forget")])) == 5


# --- masks


@pytest.mark.parametrize(
    "make",
    [
        sgd,
        lambda ws: torch.optim.Adam(ws, 0.05, weight_decay=0.1),
        lambda ws: torch.optim.AdamW(ws, 0.05, weight_decay=0.1),
        lambda ws: torch.optim.RMSprop(ws, 0.05, momentum=0.9, weight_decay=0.1),
    ],
)
@for_each("ema", [None, 0.5])
def test_masked_weights_stay_bit_for_bit_and_their_state_stays_zero(make, ema):
    of, factory = problem(), Kept(make)
    mask = top({name: torch.rand_like(p) for name, p in of.params.items()}, 0.5)
    with torch.no_grad():
        of.model[0].bias.copy_(torch.where(mask["0.bias"] == 0, -0.0, of.model[0].bias))
    start = {name: p.detach().clone() for name, p in of.params.items()}
    how = Descent(steps=6, batch=12, forget_batch=6, max_norm=1.0, ema=ema)
    descend(of, how, Phase(nested(nll("retain"), WEIGHT * bounded(), 0.1), where=mask), optimizer=factory)
    for name, p in of.params.items():
        off = mask[name] == 0
        assert bits({"": p[off]}) == bits({"": start[name][off]})
        assert not bool((p[~off] == start[name][~off]).any())
        for state in factory.optimizer.state[p].values():
            if isinstance(state, Tensor) and state.shape == p.shape:
                assert not bool(state[off].any())


def test_a_fraction_in_a_mask_slows_a_weight():
    of = problem()
    mask = {name: torch.full_like(p, 0.25).detach() for name, p in of.params.items()}
    start = flat(of.params)
    descend(of, Descent(lr=0.1, steps=1, momentum=0.0), Phase([nll("retain")], where=mask))
    unmasked = problem()
    descend(unmasked, Descent(lr=0.1, steps=1, momentum=0.0), Phase([nll("retain")]))
    assert torch.allclose(4 * (flat(of.params) - start), flat(unmasked.params) - start, rtol=0, atol=1e-14)


def test_a_mask_goes_by_names_and_not_by_order():
    of, other = problem(), problem()
    mask = top({name: torch.rand_like(p) for name, p in of.params.items()}, 0.5)
    how, terms = Descent(lr=0.1, steps=2), [nll("retain")]
    descend(of, how, Phase(terms, where=mask))
    descend(other, how, Phase(terms, where=dict(reversed(mask.items()))))
    assert torch.equal(flat(of.params), flat(other.params))


@pytest.mark.parametrize(
    ("change", "weight"),
    [
        (lambda mask: {f"module.{name}": each for name, each in mask.items()}, "0.bias"),
        (lambda mask: dict([*mask.items()][1:]), "0.weight"),
    ],
    ids=["of a wrapped model", "one is missing"],
)
def test_a_mask_of_other_weights_is_refused(change, weight: str):
    of = problem()
    mask = change({name: torch.ones_like(p) for name, p in of.params.items()})
    start = flat(of.params)
    with pytest.raises(ValueError, match=f"a mask has one multiplier per trainable weight, .* '{weight}'"):
        descend(of, Descent(lr=0.1, steps=2), Phase([nll("retain")], where=mask))
    assert torch.equal(flat(of.params), start)


# --- phases


def test_phases_share_the_momentum_and_the_schedule():
    """Two phases of the same term are one phase."""
    two, one = problem(), problem()
    retain = nll("retain")
    factory = Kept(sgd)
    how = Descent(steps=6, batch=36, schedule="cosine", warmup=0.2)
    assert descend(two, how, Phase([retain]), Phase([retain], share=2.0), optimizer=factory) == 6
    descend(one, how, Phase([retain]), optimizer=sgd)
    assert distance_between(two, one.model) < 1e-12
    assert [rate for (rate,) in factory.rates] == pytest.approx([0.1 * how.rate(i / 6) for i in range(6)])
    fresh = problem()
    descend(fresh, Descent(steps=2), Phase([retain]), optimizer=sgd)
    descend(fresh, Descent(steps=4), Phase([retain]), optimizer=sgd)
    assert distance_between(fresh, one.model) > 1e-4  # a momentum of its own each


def test_each_phase_has_its_terms_mask_and_feed():
    of = problem()
    heads, body = match_names(of.params, "^2"), match_names(of.params, "^0")
    visits: list[tuple[int, int]] = []

    def watch(of: Problem, index: int) -> None:
        visits.append((index, of.cost.examples))

    positions = [flat(of.params).clone()]
    how = Descent(lr=0.1, steps=5, batch=12, forget_batch=6, weight_decay=0.1)
    descend(
        of,
        how,
        Phase([bounded()], where=heads, watch=watch),
        Phase(
            [nll("retain")],
            where=body,
            share=1.5,
            watch=lambda of, i: positions.append(flat(of.params).clone()),
        ),
    )
    assert visits == [(0, 0), (1, 6)]
    first, last = positions[1] - positions[0], flat(of.params) - positions[1]
    n_body = sum(p.numel() for name, p in of.params.items() if name.startswith("0"))
    assert not bool(first[:n_body].any())
    assert bool(first[n_body:].any())
    assert bool(last[:n_body].any())
    assert not bool(last[n_body:].any())


def test_steps_of_phases_add_up():
    for steps in (3, 7, 10):
        phases = [Phase([nll("retain")], share=share) for share in (1.0, 1.0, 1.0)]
        assert descend(problem(), Descent(lr=0.01, steps=steps), *phases) == steps
    with pytest.raises(ValueError, match="1 steps are too few for 2 phases: phase 1 gets none"):
        descend(problem(), Descent(lr=0.01, steps=1), Phase([nll("retain")]), Phase([nll("retain")]))
    halves = [Phase([nll("retain")]), Phase([nll("retain"), bounded()], feed="sequential")]
    assert descend(problem(), Descent(lr=0.01, epochs=2, batch=9, forget_batch=6), *halves) == 4 + (4 + 2)


# --- norms, dropout, modes


def with_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 4)
    ).double()


def statistics(of: Problem) -> dict[str, bytes]:
    return bits(dict(of.model.named_buffers()))


def test_frozen_statistics_stay_and_are_used():
    of = problem(with_norm())
    before = statistics(of)
    descend(
        of, Descent(lr=0.05, steps=3, norm="frozen"), Phase(nested(nll("retain"), WEIGHT * bounded(), 0.1))
    )
    assert statistics(of) == before
    by_hand, batches = record_batches(with_norm())
    plain = copy.deepcopy(by_hand.model).eval()
    descend(by_hand, Descent(lr=0.05, steps=1, norm="frozen", momentum=0.0), Phase([nll("retain")]))
    gradient = torch.autograd.grad(ce(plain, batches[0]), list(plain.parameters()))
    with torch.no_grad():
        for p, g in zip(plain.parameters(), gradient, strict=True):
            p.sub_(0.05 * g)
    assert distance_between(by_hand, plain) < 1e-14


def test_training_statistics_are_those_of_a_plain_loop():
    of, batches = record_batches(with_norm())
    by_hand = copy.deepcopy(of.model)
    descend(of, Descent(lr=0.05, steps=3, batch=9, momentum=0.0), Phase([nll("retain")]))
    by_hand.train()[3].eval()
    for r in batches:
        by_hand.zero_grad()
        ce(by_hand, r).backward()
        with torch.no_grad():
            for p in by_hand.parameters():
                p.sub_(0.05 * p.grad)
    assert distance_between(of, by_hand) < 1e-13
    for a, b in zip(of.model.buffers(), by_hand.buffers(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=0, atol=1e-13)


def test_dropout_is_off_or_the_same_in_all_passes_of_a_step():
    masks: list[Tensor] = []

    def spy(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        masks.append((output == 0).clone())

    for policy, is_dropped in (("off", False), ("same", True)):
        masks.clear()
        of = problem(with_norm())
        of.model[3].register_forward_hook(spy)
        state = torch.get_rng_state()
        terms = nested(nll("retain"), WEIGHT * bounded(), 0.1)
        descend(of, Descent(lr=0.05, steps=2, batch=36, forget_batch=12, dropout=policy), Phase(terms))
        assert torch.equal(torch.get_rng_state(), state)
        retain = [mask for mask in masks if len(mask) == 36]
        assert len(retain) == 4
        assert bool(masks[0].any()) is is_dropped
        assert torch.equal(retain[0], retain[1])
        assert torch.equal(retain[2], retain[3])
        assert torch.equal(retain[0], retain[2]) is not is_dropped


def test_the_same_dropout_is_fixed_by_the_seed():
    states = []
    for ambient, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(3)
        of = problem(with_norm(), seed=seed)
        torch.manual_seed(ambient)
        descend(of, Descent(lr=0.05, steps=2, dropout="same"), Phase([nll("retain")]))
        states.append(bits(of.model.state_dict()))
    assert states[0] == states[1] != states[2]


def test_recurrent_layers_without_dropout_stay_in_training_mode():
    """cuDNN has no backward pass for them in evaluation mode."""
    model = nn.Sequential(nn.GRU(6, 5), nn.GRU(5, 5, num_layers=2, dropout=0.5), nn.MultiheadAttention(8, 2))
    with training_mode(model, Descent(steps=1)):
        assert [m.training for m in model] == [True, False, False]
    with training_mode(model, Descent(steps=1, dropout="same")):
        assert [m.training for m in model] == [True, True, True]


def test_a_norm_that_is_to_be_still_is_and_another_is_not():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6)).eval()
    with training_mode(model, Descent(steps=1), still=list(model)[:2]):
        assert [m.training for m in model] == [False, True, True]
    assert not any(m.training for m in model)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_flags_and_gradients_are_left_as_found(fails: bool):
    of = problem(with_norm())
    of.model.eval()
    of.model[1].train()
    of.model[4].bias.requires_grad_(False)
    modes, flags = [m.training for m in of.model.modules()], [p.requires_grad for p in of.model.parameters()]
    frozen_bias = of.model[4].bias.detach().clone()

    def watch(of: Problem, index: int) -> None:
        assert of.model.training
        if fails and index == 2:
            raise KeyboardInterrupt

    try:
        descend(of, Descent(lr=0.1, steps=4, weight_decay=0.1), Phase([nll("retain")], watch=watch))
        assert all(p.grad is None for p in of.model.parameters())
    except KeyboardInterrupt:
        assert fails
    assert [m.training for m in of.model.modules()] == modes
    assert [p.requires_grad for p in of.model.parameters()] == flags
    assert torch.equal(of.model[4].bias, frozen_bias)


# --- randomness


def test_the_seed_fixes_every_bit_and_nothing_else_does():
    states = []
    for ambient, seed in ((1, 0), (2, 0), (1, 1)):
        of = problem(seed=seed)
        torch.manual_seed(ambient)
        descend(
            of,
            Descent(lr=0.05, steps=5, batch=10, forget_batch=4),
            Phase([nll("retain"), mislabel()], rule="pcgrad"),
        )
        states.append(bits(of.model.state_dict()))
    assert states[0] == states[1] != states[2]


class ReadingAhead:
    """A source that fetches batches before they are asked for, as a DataLoader with workers does."""

    def __init__(self, source: Resident, ahead: int) -> None:
        self.source, self.ahead = source, ahead
        self.labels, self.names = source.labels, source.names

    def __len__(self) -> int:
        return len(self.source)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        inner = self.source.stream(order, generator=generator)
        buffer = list(islice(inner, self.ahead))
        for raw in inner:
            buffer.append(raw)
            yield buffer.pop(0)
        yield from buffer

    def digest(self) -> str:
        return self.source.digest()

    def to(self, device: torch.device | str) -> "ReadingAhead":
        return self


def test_how_far_a_source_reads_ahead_changes_nothing():
    """The order, the draws and the rule have generators of their own."""
    states = []
    for ahead in (0, 4):
        of = problem()
        of.split = Split(ReadingAhead(source(48, 1), ahead), range(0, 48, 4), source(24, 2))
        terms = [nll("retain"), mislabel(), uniform_pull()]
        how = Descent(lr=0.05, steps=9, batch=10, forget_batch=5, max_norm=1.0)
        descend(of, how, Phase(terms, rule="pcgrad", feed="longest"))
        states.append(bits(of.model.state_dict()))
    assert states[0] == states[1]


def uniform_pull():
    return on("retain", "flat", lambda at, b: -at.predict(b).log_softmax(-1).mean(-1))


def test_mixed_batches_know_their_forget_rows():
    of = problem()
    batches = step_batches(of, Phase([mislabel("mixed")], feed="concatenated"), Descent(steps=1, batch=16))
    for (mixed_batch,), sizes in ((parts["mixed"], sizes) for parts, sizes in islice(batches, 4)):
        assert sizes == {"mixed": 16}
        assert torch.equal(mixed_batch.forget, of.split.is_forget[mixed_batch.ids])


# --- what is no descent


def test_a_loss_that_is_no_number_stops_the_run_by_name():
    of = problem()
    broken_term = on(
        "forget", "broken", lambda at, b: at.predict(b).sum(1) * (float("nan") if at.index > 60 else 1.0)
    )
    with pytest.raises(Failed, match=r"the loss broken\(forget\) became nan: the learning rate"):
        descend(of, Descent(lr=1e-6, steps=500), Phase([nll("retain"), broken_term]))
    assert of.cost.gradients <= 2 * 100  # it did not go on to the end


def test_a_loss_that_explodes_stops_the_run_by_name():
    of = problem()
    with pytest.raises(Failed, match=r"nll\(forget\) became (inf|nan)"):
        descend(of, Descent(lr=1e308, steps=500), Phase([-nll("forget")]))


def test_weights_that_are_no_numbers_stop_the_run():
    of = problem()
    with pytest.raises(Failed, match=r"the weights 0\.weight are no longer finite"):
        descend(of, Descent(lr=1e308, steps=1, momentum=0.0), Phase([1e9 * nll("retain")]))


def test_a_term_without_a_gradient_is_refused_at_the_start():
    of = problem()
    with pytest.raises(ValueError, match="the gradient of term 2 of 2 is zero in every weight"):
        descend(of, Descent(lr=0.1, steps=3), Phase([nll("retain"), clamped(cap=1e-9)]))
    assert bits(of.model.state_dict()) == bits(net().state_dict())


class Spare(nn.Module):
    """A model with a weight that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(6, 4), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("mode", ["nested", "exact"])
def test_a_weight_that_takes_no_part_is_refused_unless_it_is_listed(mode: str):
    terms = lambda: MODES[mode](nll("retain"), WEIGHT * bounded(), 0.1)  # noqa: E731
    with pytest.raises(ValueError, match="1 weights take no part in the loss, first 'spare'"):
        descend(problem(Spare().double()), Descent(lr=0.1, steps=3), Phase(terms()))
    of = problem(Spare().double())
    descend(of, Descent(lr=0.1, steps=3, unused=("spare",)), Phase(terms()))
    assert of.model.spare.tolist() == [1.0, 1.0, 1.0]


def test_a_model_without_trainable_weights_is_refused():
    of = problem()
    of.model.requires_grad_(False)
    with pytest.raises(ValueError, match="the model has no trainable weights: set requires_grad"):
        descend(of, Descent(lr=0.1, steps=1), Phase([nll("retain")]))


# --- what a run notes


def test_curves_have_one_value_per_loss_and_step_also_ahead():
    of = problem()
    how = Descent(lr=0.01, steps=53, batch=36, forget_batch=12)
    descend(of, how, Phase(nested(nll("retain"), WEIGHT * bounded(), 0.1)))
    assert {name: len(curve) for name, curve in of.curves.items()} == {
        "nll(retain)": 53, "bounded(forget) ahead": 53, "nll(retain) ahead": 53,
    }  # fmt: skip
    at = step(problem())
    assert of.curves["nll(retain)"][0] == pytest.approx(
        float(ce(net(), at.batches["retain"][0]).detach()), abs=1e-12
    )


def test_the_size_of_the_lookahead_is_noted_relative_to_the_weights():
    of = problem()
    descend(of, Descent(lr=1e-9, steps=51), Phase([Lookahead(bounded(), nll("retain"), lr=0.1)]))
    assert [row[0] for row in of.traces["shift"]] == [0, 50]
    fresh = problem()
    (batches, _) = next(step_batches(fresh, Phase([bounded(), nll("retain")]), Descent(steps=1)))
    g = torch.autograd.grad(ce(fresh.model, batches["retain"][0]), list(fresh.params.values()))
    expected = 0.1 * float(torch.cat([x.flatten() for x in g]).norm() / flat(fresh.params).norm())
    assert of.traces["shift"][0][1] == pytest.approx(expected, rel=1e-9)


def test_a_shift_that_bf16_rounds_away_is_said(caplog):
    for alpha, has_warning in ((1e-3, True), (5.0, False)):
        caplog.clear()
        of = problem(net(dtype=torch.float32))
        with caplog.at_level(logging.WARNING, "unweave"):
            descend(
                of,
                Descent(lr=0.01, steps=1, precision="bf16"),
                Phase([Lookahead(bounded(), nll("retain"), lr=alpha)]),
            )
        assert bool(caplog.records) is has_warning
    with caplog.at_level(logging.WARNING, "unweave"):
        descend(problem(), Descent(lr=0.01, steps=1), Phase([Lookahead(bounded(), nll("retain"), lr=1e-3)]))
    assert not caplog.records


def test_probes_are_called_before_every_step():
    of, calls = problem(), []
    descend(
        of,
        Descent(lr=0.01, steps=3),
        Phase([nll("retain")], watch=lambda of, i: calls.append((i, of.cost.gradients))),
    )
    assert calls == [(0, 0), (1, 1), (2, 2)]


def test_a_users_own_term_sees_the_step():
    of, steps = problem(), []

    class Progress:
        parts = frozenset({"retain"})

        def present(self, at: Step) -> bool:
            return True

        def gradient(self, at: Step):
            steps.append((at.index, at.of))
            return at.gradient(nll("retain"))

    descend(of, Descent(lr=0.01, steps=3), Phase([Progress()]))
    assert steps == [(0, 3), (1, 3), (2, 3)]
    assert batch(of, [0]).ids.tolist() == [0]


class Fixed:
    """A direction of a user's own, the same tensors at every step."""

    def __init__(self, of: Problem) -> None:
        self.direction = {name: torch.ones_like(p) for name, p in of.params.items()}

    parts = frozenset({"retain"})

    def present(self, at: Step) -> bool:
        return True

    def gradient(self, at: Step):
        return self.direction


@for_each(
    ("name", "terms"),
    [
        ("alone", lambda fixed: [fixed]),
        ("twice", lambda fixed: [fixed, fixed]),
        ("first", lambda fixed: [fixed, nll("retain")]),
        ("last", lambda fixed: [nll("retain"), bounded(), fixed]),
        ("reused", lambda fixed: [ReusedGradient(fixed, every=2), nll("retain")]),
        ("ahead", lambda fixed: [Lookahead(fixed, nll("retain"), lr=0.1), fixed]),
    ],
)
def test_a_sum_of_gradients_overwrites_none_that_others_hold(name: str, terms):
    of = problem()
    fixed = Fixed(of)
    descend(of, Descent(lr=0.01, steps=2, max_norm=1e-3), Phase(terms(fixed)))
    assert all(bool((each == 1).all()) for each in fixed.direction.values())


class SharedGradients(nn.Module):
    """Two weights whose sum is used: autograd gives both one gradient, in one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (
            nn.Parameter(torch.ones(shape).double())
            for shape in ((CLASSES, 1, FEATURES), (CLASSES, FEATURES))
        )

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.a.squeeze(1) + self.b.view(CLASSES, FEATURES)).T


def test_gradients_of_two_weights_in_one_memory_are_summed_once():
    of = problem(SharedGradients())
    at = step(of)
    parts = [at.gradient(nll("retain")), at.gradient(bounded())]
    expected = {name: parts[0][name] + parts[1][name] for name in of.params}
    gradient = combine_gradients(step(of), Phase([nll("retain"), bounded()]), torch.Generator())
    assert all(torch.allclose(gradient[name], expected[name], rtol=0, atol=1e-14) for name in expected)
    single = combine_gradients(step(of), Phase([nll("retain")]), torch.Generator())
    assert len({each.data_ptr() for each in single.values()}) == len(single), "clipping scales each once"


def test_one_gradient_in_several_places_of_a_sum_stays_as_it_was():
    of, forget = problem(), nll("forget")
    reused = ReusedGradient(forget, every=10)
    at = step(of)
    expected = [4 * g for g in at.gradient(forget).values()]
    gradient = combine_gradients(at, Phase([forget, reused, forget, forget]), torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(gradient.values(), expected, strict=True))
    assert all(
        torch.equal(4 * a, b)
        for a, b in zip(at.runtime.reused_gradients[id(reused)].values(), expected, strict=True)
    )

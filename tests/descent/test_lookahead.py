"""What any implementation of LUR must satisfy, line by line, each with a control that must fail."""

import copy
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from for_each import for_each
from once_differentiable import Double
from smooth import (
    MODES,
    WEIGHT,
    Vector,
    batch,
    bits,
    definite,
    direction,
    flat,
    net,
    problem,
    quadratic,
    step,
    vector_problem,
)
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.hessian import differentiate_twice
from unweave.descent.lookahead import (
    EveryNthStep,
    Lookahead,
    PreviousGradient,
    ReusedGradient,
    exact,
    lagged,
    nested,
)
from unweave.descent.objective import Objective, bounded, nll
from unweave.descent.probe import Probe
from unweave.descent.units import refuse_divergence
from unweave.descent.weighted_sum import OnWeights
from unweave.problem import Problem
from unweave.weights.params import add, dot, norm
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step, Term

ALPHAS = (0.05, 0.025, 0.0125)


def halving(errors: list[float]) -> list[float]:
    """How the error falls each time alpha is halved."""
    return [a / b for a, b in pairwise(errors)]


def losses(of: Problem) -> tuple[Objective, Objective]:
    """Retain and weighted forget objective."""
    return nll("retain"), WEIGHT * bounded("forget")


def by_hand(of: Problem, alpha: float, *, of_inner: float = 1.0) -> Tensor:
    """The gradient of L_r(theta) + lambda L_u(theta - alpha grad L_r(theta)), through the inner step."""
    params = dict(of.model.named_parameters())
    retain, forget = batch(of, of.split.retain), batch(of, of.split.forget)

    def loss(weights: dict[str, Tensor], at) -> Tensor:
        return F.cross_entropy(functional_call(of.model, weights, at.inputs), at.target, reduction="none")

    l_r = loss(params, retain).mean()
    g_r = torch.autograd.grad(l_r, list(params.values()), create_graph=True)
    point = {name: p - alpha * of_inner * g for (name, p), g in zip(params.items(), g_r, strict=True)}
    l_u = -torch.log1p(loss(point, forget)).mean()
    total = torch.autograd.grad(l_r + WEIGHT * l_u, list(params.values()))
    return torch.cat([g.flatten() for g in total])


def alignment(of: Problem) -> Tensor:
    """The gradient of <g_r, g_u>, by autograd."""
    at = step(of)
    weights = list(of.params.values())
    graphs = [
        torch.autograd.grad(sum(term.losses(at)), weights, create_graph=True)
        for term in (nll("retain"), bounded())
    ]
    inner = sum((a * b).sum() for a, b in zip(*graphs, strict=True))
    assert isinstance(inner, Tensor)
    return torch.cat([g.flatten() for g in torch.autograd.grad(inner, weights)])


def follow(of: Problem, mode: str, alpha: float, steps: int = 1) -> Tensor:
    """The direction of a mode after a number of steps at frozen weights."""
    terms = MODES[mode](*losses(of), alpha)
    return frozen_steps(of, terms, steps)[-1]


def frozen_steps(of: Problem, terms: list[Term], steps: int) -> list[Tensor]:
    """The directions of successive steps that do not move."""
    runtime, before, ends = Runtime(of.model, of.task, cost=of.cost), {}, []
    for index in range(steps):
        at = step(of, index=index, before=before, runtime=runtime)
        ends.append(direction(at, terms))
        before = {key: at.memory[key][1] for key in runtime.lagged_terms}
    return ends


# --- the gradient that is followed


@pytest.mark.parametrize("alpha", ALPHAS)
@for_each("mode", ["exact", "nested"])
def test_quadratics_have_a_closed_form(mode: str, alpha: float):
    t, a, b = torch.randn(3, 5, dtype=torch.float64).unbind()
    A, B = definite(5, 1), definite(5, 2)
    of = vector_problem(t)
    answer = direction(step(of, {}), MODES[mode](quadratic(A, a), WEIGHT * quadratic(B, b), alpha))
    eye = torch.eye(5, dtype=torch.float64)
    expected = A @ (t - a) + WEIGHT * (eye - alpha * A) @ B @ (t - alpha * A @ (t - a) - b)
    assert torch.allclose(answer, expected, rtol=0, atol=1e-12)
    misplaced_answer = A @ (t - a) + (eye - alpha * WEIGHT * A) @ B @ (t - alpha * A @ (t - a) - b)
    assert not torch.allclose(answer, misplaced_answer, rtol=0, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.5, 0.1])
@for_each("between", [nn.Tanh, nn.Softplus])
def test_exact_is_the_gradient_through_the_inner_step(alpha: float, between):
    of = problem(net(between=between))
    assert torch.allclose(follow(of, "exact", alpha), by_hand(of, alpha), rtol=0, atol=1e-12)
    assert not torch.allclose(
        follow(of, "exact", alpha), by_hand(of, alpha, of_inner=WEIGHT), rtol=0, atol=1e-4
    )


@for_each("mode", ["exact", "nested", "lagged"])
def test_the_slope_in_alpha_is_the_gradient_of_the_alignment(mode: str):
    of = problem()
    slope = -WEIGHT * alignment(of)
    start = follow(of, "joint", 0.0)
    errors = [float(((follow(of, mode, a, 3) - start) / a - slope).norm()) for a in ALPHAS]
    assert all(1.98 < ratio < 2.02 for ratio in halving(errors)), halving(errors)


def test_half_of_the_alignment_is_not_all_of_it():
    of = problem()
    slope, start = -WEIGHT * alignment(of), follow(of, "joint", 0.0)
    errors = [float(((follow(of, "first-order", a) - start) / a - slope).norm()) for a in ALPHAS]
    assert all(ratio < 1.1 for ratio in halving(errors)), halving(errors)
    assert errors[-1] > 0.2 * float(slope.norm())


@for_each(("mode", "steps"), [("nested", 1), ("lagged", 2), ("lagged", 5)])
def test_modes_agree_with_exact_to_second_order(mode: str, steps: int):
    of = problem()
    errors = [float((follow(of, mode, a, steps) - follow(of, "exact", a)).norm()) for a in ALPHAS]
    assert all(3.9 < ratio < 4.1 for ratio in halving(errors)), halving(errors)


def unweighted_second_shift(of: Problem, alpha: float) -> list[Term]:
    retain, forget = losses(of)
    lonely = Lookahead(bounded("forget"), through=retain, lr=alpha)
    return [Lookahead(retain, through=lonely, lr=alpha), Lookahead(forget, through=retain, lr=alpha)]


def test_a_weight_missing_in_the_second_shift_is_seen():
    of = problem()
    errors = [
        float((frozen_steps(of, unweighted_second_shift(of, a), 1)[0] - follow(of, "exact", a)).norm())
        for a in ALPHAS
    ]
    assert all(1.8 < ratio < 2.2 for ratio in halving(errors)), halving(errors)


def test_first_order_is_one_order_short():
    of = problem()
    errors = [float((follow(of, "first-order", a) - follow(of, "exact", a)).norm()) for a in ALPHAS]
    assert all(1.8 < ratio < 2.2 for ratio in halving(errors)), halving(errors)


def test_the_first_step_of_lagged_is_nested():
    of = problem()
    first, second = frozen_steps(of, lagged(*losses(of), 0.05), 2)
    assert torch.equal(first, follow(of, "nested", 0.05))
    assert not torch.equal(first, second)


def test_the_second_order_remainder_of_exact():
    """alpha^2 lambda (T_u / 2 + H_r H_u g_r) is what a first-order expansion leaves over."""
    t, a, b = torch.randn(3, 4, dtype=torch.float64).unbind()
    A, B, alpha = definite(4, 1), definite(4, 2), 0.1
    of = vector_problem(t)
    retain, forget = quadratic(A, a), WEIGHT * quadratic(B, b)
    answer = direction(step(of, {}), exact(retain, forget, alpha))
    g_r, g_u = A @ (t - a), B @ (t - b)
    linear = g_r + WEIGHT * g_u - alpha * WEIGHT * (B @ g_r + A @ g_u)
    assert torch.allclose(answer - linear, alpha**2 * WEIGHT * A @ B @ g_r, rtol=0, atol=1e-13)


# --- lagged is stable below its bound, and not above


def follow_two_parabolas(factor: float, steps: int) -> list[float]:
    """The size of lagged's retain row on h x^2 / 2 twice, at frozen weights, alpha^2 lambda h^2 given."""
    h = 2.0
    alpha = math.sqrt(factor / WEIGHT) / h
    of = vector_problem(torch.ones(1, dtype=torch.float64))
    parabola = quadratic(h * torch.eye(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    terms = lagged(parabola, WEIGHT * parabola, alpha)
    runtime, before, sizes = Runtime(of.model, of.task), {}, []
    for index in range(steps):
        at = step(of, {}, index=index, before=before, runtime=runtime)
        direction(at, terms)
        before = {key: at.memory[key][1] for key in runtime.lagged_terms}
        sizes.append(float(norm(at.gradient(terms[0]))))
    return sizes


def test_lagged_stays_bounded_below_its_bound_and_grows_above():
    bounded_run, growing_run = follow_two_parabolas(0.95, 300), follow_two_parabolas(1.05, 300)
    assert max(bounded_run) < 100
    assert abs(bounded_run[-1] - bounded_run[-2]) < 1e-4
    assert growing_run[-1] > 1e4
    assert growing_run[-1] / growing_run[-2] == pytest.approx(1.05, rel=1e-3)


@pytest.mark.parametrize("squared", [0.6, 1.05])
def test_the_bound_check_refuses_what_would_grow_or_nearly(squared: float):
    with pytest.raises(ValueError, match=r"converges below alpha 0\.913 here and is used below 0\.7 of that"):
        check_two_parabolas(squared)


def test_the_bound_check_lets_a_safe_alpha_pass_and_moves_nothing():
    check_two_parabolas(0.4)


def check_two_parabolas(factor: float) -> None:
    of = vector_problem(torch.ones(1, dtype=torch.float64))
    parabola = quadratic(2 * torch.eye(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    alpha = math.sqrt(factor / WEIGHT) / 2
    refuse_divergence(step(of, {}), parabola, parabola, WEIGHT, alpha)
    assert of.model.t.tolist() == [1.0]


# --- alpha = 0, and the finite-difference oracle


@for_each("mode", ["nested", "lagged", "exact", "first-order"])
def test_no_lookahead_is_the_joint_gradient_bit_for_bit(mode: str):
    of = problem(net(dtype=torch.float32))
    joint = follow(of, "joint", 0.0, 2)
    assert torch.equal(follow(of, mode, 0.0, 2), joint)
    assert not torch.equal(follow(of, mode, 0.05, 2), joint)


class Twice(nn.Module):
    """A network that uses one matrix twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.inner(x).tanh()).tanh())


@for_each("mode", ["nested", "lagged", "exact", "first-order"])
def test_no_lookahead_is_the_fused_gradient_to_rounding(mode: str):
    of = problem(Twice())
    retain, forget = losses(of)
    fused_gradient = flat(step(of).gradient(retain + forget))
    assert float((follow(of, mode, 0.0, 2) - fused_gradient).norm() / fused_gradient.norm()) < 1e-6


def test_a_finite_difference_oracle_agrees_with_exact():
    of, alpha = problem(), 0.1
    at, retain = step(of), nll("retain")
    v = {name: torch.randn_like(p) for name, p in of.params.items()}
    product = flat(differentiate_twice(at, retain)(v))
    h = 1e-3 * float(flat(of.params).norm() / norm(v))
    ends = []
    for sign in (1, -1):
        with at.at(v, sign * h) as shifted_step:
            ends.append(flat(shifted_step.gradient(retain)))
    difference = (ends[0] - ends[1]) / (2 * h)
    expected = flat(v) - alpha * difference
    assert float((flat(v) - alpha * product - expected).norm() / expected.norm()) < 1e-3
    assert float((product - difference).norm() / difference.norm()) < 1e-3


# --- what a lookahead leaves behind


class Interrupted(Exception):
    """The body of a lookahead that does not end."""


def with_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 4)
    ).double()


def snapshot(of: Problem, optimizer: torch.optim.Optimizer) -> tuple[dict[str, bytes], ...]:
    momentum = {str(i): optimizer.state[p]["momentum_buffer"] for i, p in enumerate(of.params.values())}
    modes = {name: bytes([m.training]) for name, m in of.model.named_modules()}
    grads = {name: bytes([p.grad is None, p.requires_grad]) for name, p in of.model.named_parameters()}
    places = {name: id(p).to_bytes(8) for name, p in of.model.named_parameters()}
    return bits(of.model.state_dict()), bits(momentum), modes, grads, places


@pytest.mark.parametrize("how", ["at", "beside", "exact"])
@for_each("fails", [False, True])
def test_everything_is_restored_bit_for_bit(how: str, fails: bool):
    of = problem(with_norm())
    of.model[3].eval()
    with torch.no_grad():
        of.model[0].bias[0] = -0.0
    optimizer = torch.optim.SGD(of.params.values(), 0.1, 0.9)
    at = step(of)
    for term in (
        nll("retain"),
        bounded(),
    ):  # running statistics are updated by the first pass over each batch
        of.model(at.batches[next(iter(term.parts))][0].inputs[0])
        at.gradient(term)
    for p in of.params.values():
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.zero_grad()
    before = snapshot(of, optimizer)

    def body(shifted_step: Step) -> None:
        shifted_step.gradient(bounded())
        assert not torch.equal(flat(shifted_step.params), start)
        if fails:
            raise Interrupted

    start = flat(of.params).clone()
    try:
        if how == "exact":
            Lookahead(Probing(body), through=nll("retain"), lr=0.1, hessian="exact").gradient(at)
        else:
            with (at.at if how == "at" else at.at_copy)(at.gradient(nll("retain")), -0.1) as shifted_step:
                body(shifted_step)
    except Interrupted:
        assert fails
    assert snapshot(of, optimizer) == before


class Probing:
    """A term that looks around where it is evaluated."""

    def __init__(self, look) -> None:
        self.look = look

    @property
    def parts(self) -> frozenset:
        return frozenset({"forget"})

    def present(self, at: Step) -> bool:
        return True

    def gradient(self, at: Step):
        self.look(at)
        return at.gradient(bounded())


def test_a_lookahead_is_where_it_says():
    of = problem()
    at, positions = step(of), []
    Lookahead(
        Probing(lambda shifted_step: positions.append(flat(shifted_step.params).clone())),
        nll("retain"),
        lr=0.2,
    ).gradient(at)
    expected = flat(of.params) - 0.2 * flat(at.gradient(nll("retain")))
    assert torch.allclose(positions[0], expected, rtol=0, atol=1e-15)


# --- the count of gradient evaluations

PER_STEP = {"nested": (3, 3), "lagged": (3, 2), "exact": (2, 2), "first-order": (2, 2), "joint": (2, 2)}


@for_each("mode", PER_STEP)
def test_gradient_evaluations_are_counted_as_the_table_has_them(mode: str):
    of = problem()
    retain, forget = losses(of)
    evaluations, calls = [], []
    hook = of.model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))

    def watch(of: Problem, index: int) -> None:
        evaluations.append((of.cost.gradients, sum(calls)))

    descend(
        of,
        Descent(lr=0.01, steps=3, batch=12, forget_batch=6),
        Phase(MODES[mode](retain, forget, 0.05), watch=watch),
    )
    hook.remove()
    evaluations.append((of.cost.gradients, sum(calls)))
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(evaluations)]
    first_step, later_step = PER_STEP[mode]
    assert steps == [(first_step, first_step), (later_step, later_step), (later_step, later_step)]
    forgets = 3
    assert of.cost.examples == 6 * forgets + 12 * (of.cost.gradients - forgets)


# --- the conflict of the gradients is measured apart


def test_the_probe_is_the_cosine_at_the_weights_and_costs_the_method_nothing():
    with_probe, without_probe = problem(), problem()
    retain, forget = losses(with_probe)
    probe = Probe(2, retain, forget)
    how = Descent(lr=0.01, steps=5, batch=12, forget_batch=6)
    start = copy.deepcopy(with_probe.model)
    descend(with_probe, how, Phase(nested(retain, forget, 0.5), watch=probe))
    descend(without_probe, how, Phase(nested(*losses(without_probe), 0.5)))
    assert torch.equal(flat(with_probe.params), flat(without_probe.params))
    assert with_probe.cost.gradients == without_probe.cost.gradients
    assert with_probe.cost.seconds < 0  # taken off what a clock around the method sees
    assert [row[0] for row in with_probe.traces["cosine"]] == [0, 2, 4]
    of = problem(start)
    at = step(of)
    g, f = at.gradient(retain), at.gradient(forget)
    cosine = float(dot(g, f) / norm(g) / norm(f))
    assert with_probe.traces["cosine"][0][1] == pytest.approx(cosine, abs=1e-9)


def test_the_cosine_that_falls_out_of_a_lookahead_step_is_another():
    of = problem()
    retain, forget = losses(of)
    at = step(of)
    row, lookahead = nested(retain, forget, 2.0)
    g, f = at.gradient(row), at.gradient(lookahead)
    biased_cosine = float(dot(g, f) / norm(g) / norm(f))
    g, f = at.gradient(retain), at.gradient(forget)
    assert abs(biased_cosine - float(dot(g, f) / norm(g) / norm(f))) > 0.02


# --- the other terms


def test_where_the_inner_data_is_absent_the_outer_term_is_taken_in_place():
    of = problem()
    retain, forget = losses(of)
    forget_batches = {"forget": step(of).batches["forget"]}
    for hessian in (None, "exact"):
        term = Lookahead(forget, through=retain, lr=0.5, hessian=hessian)
        at = step(of, forget_batches)
        assert term.present(at)
        assert torch.equal(flat(at.gradient(term)), flat(step(of, forget_batches).gradient(forget)))
    assert not Lookahead(retain, through=forget, lr=0.5).present(step(of, forget_batches))


def test_exact_needs_an_objective_to_differentiate():
    of = problem()
    retain, forget = losses(of)
    with pytest.raises(ValueError, match="is another lookahead"):
        step(of).gradient(Lookahead(forget, through=Lookahead(retain, forget, 0.1), lr=0.1, hessian="exact"))


def test_exact_builds_the_retain_graph_once():
    of = problem()
    retain, forget = losses(of)
    _, forget_ahead = exact(retain, forget, 0.05)
    at = step(of)
    at.gradient(forget_ahead)
    gradient = at.gradient(retain)
    assert of.cost.gradients == 2
    single = step(of).gradient(retain)
    assert torch.allclose(flat(gradient), flat(single), rtol=0, atol=1e-15)


def test_previous_gives_what_the_step_before_ended_with():
    of = problem()
    retain, forget = losses(of)
    previous = PreviousGradient(first=retain)
    previous.follow(forget)
    previous_gradients = []
    how = Descent(lr=0.05, steps=3, batch=12, forget_batch=6, momentum=0.0)
    gradients: list[Tensor] = []

    class Both:
        parts = frozenset({"retain", "forget"})

        def present(self, at: Step) -> bool:
            return True

        def gradient(self, at: Step):
            previous_gradients.append(flat(at.gradient(previous)))
            gradients.extend((flat(at.gradient(retain)), flat(at.gradient(forget))))
            return at.gradient(forget)

    descend(of, how, Phase([Both()]))
    assert torch.equal(previous_gradients[0], gradients[0])
    assert torch.equal(previous_gradients[1], gradients[1])
    assert torch.equal(previous_gradients[2], gradients[3])


def test_every_nth_step_is_clipped_on_its_own():
    of = problem()
    term = EveryNthStep(nll("retain"), 3, clip=1e-3)
    assert [term.present(step(of, index=i)) for i in range(7)] == [True, False, False] * 2 + [True]
    free_gradient, clipped_gradient = step(of).gradient(nll("retain")), step(of).gradient(term)
    assert float(norm(clipped_gradient)) == pytest.approx(1e-3, rel=1e-12)
    assert torch.allclose(
        flat(clipped_gradient) / flat(clipped_gradient).norm(),
        flat(free_gradient) / flat(free_gradient).norm(),
        atol=1e-14,
    )
    loose_gradient = step(of).gradient(EveryNthStep(nll("retain"), 1, clip=1e3))
    assert torch.equal(flat(loose_gradient), flat(free_gradient))
    assert not EveryNthStep(nll("calibration"), 1).present(step(of))


def test_a_descent_rests_where_no_term_is_present():
    of = problem()
    positions = []
    descend(
        of,
        Descent(lr=0.1, steps=4, momentum=0.9),
        Phase(
            [EveryNthStep(nll("retain"), 2)], watch=lambda of, _: positions.append(flat(of.params).clone())
        ),
    )
    positions.append(flat(of.params).clone())
    moves = [not torch.equal(a, b) for a, b in pairwise(positions)]
    assert moves == [True, False, True, False]


def test_a_held_gradient_is_held_and_survives_the_clip():
    of = problem()
    reused_term = ReusedGradient(nll("retain"), every=3)
    gradients: list[Tensor] = []

    class Seen:
        parts = frozenset({"retain"})

        def present(self, at: Step) -> bool:
            return reused_term.present(at)

        def gradient(self, at: Step):
            gradient = at.gradient(reused_term)
            gradients.append(flat(gradient).clone())
            return gradient

    descend(of, Descent(lr=0.1, steps=6, batch=12, max_norm=1e-3), Phase([Seen()]))
    assert all(torch.equal(gradients[0], s) for s in gradients[:3])
    assert all(torch.equal(gradients[3], s) for s in gradients[3:])
    assert not torch.equal(gradients[0], gradients[3])
    assert float(gradients[0].norm()) > 1e-2
    assert of.cost.gradients == 2


def test_a_term_in_two_places_is_evaluated_once():
    of = problem()
    retain = nll("retain")
    at = step(of)
    direction(at, [retain, retain])
    assert of.cost.gradients == 1


def test_a_gradient_is_remembered_by_identity():
    of = problem()
    at = step(of)
    at.gradient(nll("retain"))
    at.gradient(nll("retain"))
    assert of.cost.gradients == 2


def test_recurrent_networks_are_shifted_too():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.read(x.unflatten(1, (3, 2)))[1][0])

    of = problem(Reader().double())
    ends = [follow(of, mode, 0.05) for mode in ("exact", "nested", "joint")]
    assert float((ends[0] - ends[1]).norm()) < 0.05 * float((ends[0] - ends[2]).norm())


def test_weights_of_a_penalty_are_those_of_the_shift():
    """A penalty reads the weights of its step, in copies as in place."""
    of = vector_problem(torch.ones(3, dtype=torch.float64))
    sum_of_cubes = Objective(((1.0, OnWeights("cubes", lambda at: at.params["t"].pow(3).sum())),))
    eye = torch.eye(3, dtype=torch.float64)
    inner = quadratic(eye, torch.zeros(3, dtype=torch.float64))
    for hessian, factor in ((None, 1.0), ("exact", 0.9)):
        gradient = step(of, {}).gradient(Lookahead(sum_of_cubes, inner, lr=0.1, hessian=hessian))
        assert torch.allclose(
            flat(gradient), torch.full((3,), factor * 3 * 0.9**2, dtype=torch.float64), atol=1e-14
        )
    assert isinstance(of.model, Vector)


@pytest.mark.parametrize("around", [False, True])
def test_a_shift_is_real_where_forward_passes_are_cast(around: bool):
    """The cache of cast weights survives a shift in place where autocast is opened around both passes."""
    of = problem(net().float())
    at = Step(of.params, Runtime(of.model, of.task, "bf16"), step(of).batches, {"retain": 24, "forget": 12})
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        gradient = at.gradient(nll("retain"))
        with at.at(gradient, -0.5) as shifted_step:
            shifted_gradient = shifted_step.gradient(nll("retain"))
    assert float(norm(add(gradient, shifted_gradient, scale=-1)) / norm(gradient)) > 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_would_swallow_the_shift_are_refused(dtype: torch.dtype):
    of = problem()
    of.model.to(dtype)
    at = Step(of.params, Runtime(of.model, of.task), {}, {})
    for shift in (at.at, at.at_copy):
        with pytest.raises(
            ValueError, match="a lookahead needs float32 weights, found .* load the model in float32"
        ):
            shift({name: torch.ones_like(p) for name, p in of.params.items()}, 0.01).__enter__()


class Recomputed(nn.Module):
    """A network whose first layers are run again during the backward pass."""

    def __init__(self, body: nn.Sequential, *, reentrant: bool) -> None:
        super().__init__()
        self.body, self.reentrant = body, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.body[2](checkpoint(self.body[:2], x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("mode", ["exact", "nested"])
def test_gradient_checkpointing_changes_nothing(mode: str):
    ends = [follow(problem(model), mode, 0.1) for model in (net(), Recomputed(net(), reentrant=False))]
    assert torch.allclose(*ends, rtol=0, atol=1e-12)
    assert not torch.allclose(ends[0], follow(problem(), "joint", 0.1), rtol=0, atol=1e-3)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_is_refused_where_a_second_derivative_is_needed():
    with pytest.raises(
        ValueError, match="this model lacks them .* use mode 'nested'|take no part in the loss"
    ):
        follow(problem(Recomputed(net(), reentrant=True)), "exact", 0.1)


class Doubled(nn.Module):
    """A network with such an operation in its middle."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body[2](Double.apply(self.body[:2](x)))


def test_an_operation_that_is_differentiable_once_is_refused_where_a_second_derivative_is_needed():
    with pytest.raises(ValueError, match=r"this model lacks them .*once_differentiable.* use mode 'nested'"):
        follow(problem(Doubled(net())), "exact", 0.1)
    follow(problem(Doubled(net())), "nested", 0.1)

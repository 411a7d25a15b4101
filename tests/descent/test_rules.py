"""Rules: closed forms, the values that others pin, and the properties that make them rules."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from for_each import for_each
from unweave.descent.rules import RULES, RuleName, cagrad, gem, mgda, nash, pcgrad, project, total, upgrad
from unweave.methods.conflict import UPGrad
from unweave.weights.params import combine, dot, gramian


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def jacobian(seed: int, m: int, n: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(m, n, generator=make_generator(seed), dtype=torch.float64)


def direction(rule: RuleName, J: Tensor, seed: int = 0) -> Tensor:
    return RULES[rule](J @ J.T, make_generator(seed)) @ J


def close(a: Tensor, b: Tensor, J: Tensor) -> bool:
    """Equal up to rounding at the scale of the gradients."""
    return float((a - b).norm()) <= 1e-9 * float(J.norm())


def rounding(rule: RuleName, J: Tensor) -> float:
    """Of a direction. A bargain is as long whatever the gradients; opposite ones cancel half its digits."""
    return 1e-8 if rule == "nash" else 1e-9 * float(J.norm(dim=1).max())


jacobians = st.builds(
    jacobian,
    st.integers(0, 10**6),
    st.just(2),
    st.integers(1, 6),
    st.sampled_from([1e-6, 1e-2, 1.0, 1e2, 1e6]),
)


# --- properties


@for_each("rule", RULES)
def test_one_term_is_followed_as_it_is(rule: RuleName):
    assert RULES[rule](torch.tensor([[3.0]]), make_generator()).tolist() == [1.0]
    assert RULES[rule](torch.tensor([[0.0]]), make_generator()).tolist() == [1.0]


@settings(deadline=None, max_examples=50)
@given(jacobians, st.sampled_from(["pcgrad", "nash", "mgda", "upgrad"]))
def test_some_rules_oppose_neither_of_two(J: Tensor, rule: RuleName):
    d = direction(rule, J)
    assert bool((J @ d >= -rounding(rule, J) * float(J.norm(dim=1).max())).all())


@settings(deadline=None, max_examples=50)
@given(jacobians)
def test_project_never_opposes_the_second(J: Tensor):
    assert float(J[1] @ direction("project", J)) >= -1e-9 * float((J @ J.T).abs().max())


@settings(deadline=None, max_examples=50)
@given(jacobians)
def test_without_conflict_all_but_project_add_up(J: Tensor):
    if float(J[0] @ J[1]) < 0:
        J = torch.stack([J[0], -J[1]])
    assert close(direction("pcgrad", J), J.sum(0), J)
    assert torch.equal(direction("project", J), J[0])
    assert torch.equal(direction("gem", J), J[0])


@settings(deadline=None, max_examples=50)
@given(jacobians)
def test_rules_that_treat_two_alike_do_not_depend_on_their_order(J: Tensor):
    for rule in ("pcgrad", "total", "nash", "mgda", "cagrad", "upgrad"):
        difference = (direction(rule, J) - direction(rule, J.flip(0))).norm()
        assert float(difference) <= rounding(rule, J)


@settings(deadline=None, max_examples=50)
@given(jacobians, st.sampled_from([1e-3, 7.0, 1e4]))
def test_directions_scale_with_the_gradients(J: Tensor, by: float):
    for rule in ("total", "pcgrad", "project", "mgda", "cagrad", "upgrad"):
        assert close(direction(rule, by * J), by * direction(rule, J), by * J)


@for_each("rule", RULES)
def test_a_gradient_of_zero_is_no_division_by_zero(rule: RuleName):
    for J in (
        torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [1.0, 2.0]]),
        torch.zeros(2, 2),
    ):
        assert bool(torch.isfinite(direction(rule, J)).all())


# --- closed forms


def project_each(g: Tensor, other_gradients: list[Tensor]) -> Tensor:
    """Algorithm 1 of the paper on vectors, for one gradient."""
    for other in other_gradients:
        overlap = g @ other
        if overlap < 0:
            g = g - overlap / (other @ other) * other
    return g


@for_each("seed", range(5))
def test_pcgrad_is_its_algorithm_box(seed: int):
    J = jacobian(seed, 4, 3)
    generator, expected = make_generator(seed), torch.zeros(3, dtype=torch.float64)
    for i in range(4):
        expected += project_each(
            J[i], [J[j] for j in torch.randperm(4, generator=generator).tolist() if j != i]
        )
    assert torch.allclose(direction("pcgrad", J, seed), expected, rtol=0, atol=1e-12)


def test_pcgrad_draws_its_order_from_the_generator():
    J = jacobian(3, 4, 3)
    directions = [direction("pcgrad", J, 0) for _ in range(2)]
    assert torch.equal(*directions)
    assert len({tuple(direction("pcgrad", J, seed).tolist()) for seed in range(8)}) > 1


@for_each("seed", range(5))
def test_project_is_the_nearest_direction_that_does_not_oppose(seed: int):
    J = jacobian(seed, 2, 5)
    pull, _ = nnls(J[1].numpy()[:, None], -J[0].numpy())  # the dual: the smallest |g_1 + v g_2| with v >= 0
    assert np.allclose(direction("project", J), J[0] + pull[0] * J[1], atol=1e-12)


def test_gem_adds_at_least_half_of_the_second_where_they_conflict():
    slight = torch.tensor([[1.0, 0.0], [-0.1, 1.0]], dtype=torch.float64)
    strong = torch.tensor([[5.0, 0.0], [-1.0, 0.1]], dtype=torch.float64)
    assert gem(slight @ slight.T, make_generator()).tolist() == [1.0, 0.5]
    assert gem(strong @ strong.T, make_generator())[1] == pytest.approx(5 / (1.01 + 1e-3))


def test_total_is_the_sum():
    assert total(torch.eye(3), make_generator()).tolist() == [1.0, 1.0, 1.0]


@for_each("rule", [project, gem, nash, mgda, cagrad, upgrad])
def test_rules_for_two_refuse_three(rule):
    with pytest.raises(ValueError, match=f"rule '{rule.__name__}' is for two terms, found 3: use 'total'"):
        rule(torch.eye(3), make_generator())


# --- two gradients at every angle, of sizes far apart

ANGLES = (0.0, 1e-4, 0.3, 1.2, math.pi / 2, 2.0, 2.8, math.pi - 1e-3)
RATIOS = (1.0, 0.3, 1e-2, 1e-3)


def pair(angle: float, ratio: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A gradient of the size of `ratio`, and one of size 1 at that angle to it."""
    rows = [[ratio, 0.0, 0.0], [math.cos(angle), math.sin(angle), 0.0]]
    return torch.tensor(rows, dtype=dtype)


pairs = for_each(("angle", "ratio"), list(product(ANGLES, RATIOS)))


@pairs
def test_nash_is_the_bargain(angle: float, ratio: float):
    J = pair(angle, ratio)
    weights = nash(J @ J.T, make_generator())
    assert bool((weights > 0).all())
    assert torch.allclose(J @ J.T @ weights, 1 / weights, rtol=1e-5)
    assert float((weights @ J).norm()) == pytest.approx(math.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("ratio", [1e-2, 1e-3])
def test_nash_bears_a_small_gradient_in_float32(ratio: float):
    # the formula of the released code answers -17.6 and 4011 in the second weight, and falls back to a sum
    J = pair(math.acos(0.0) + 0.02, ratio, torch.float32)
    expected = 1 / math.sqrt(1 - math.sin(0.02))
    assert nash(J @ J.T, make_generator()).tolist() == pytest.approx([expected / ratio, expected], rel=1e-4)


@pairs
def test_mgda_is_the_shortest_vector_between(angle: float, ratio: float):
    J = pair(angle, ratio)
    weights = mgda(J @ J.T, make_generator())
    assert float(weights.sum()) == pytest.approx(1) and bool((weights >= 0).all())
    # the foot of the origin on the line through both, if it lies between them, or else the nearer end
    one, other = J.numpy()
    between = one @ (one - other) > 0 and other @ (other - one) > 0
    shortest = min(np.linalg.norm(one), np.linalg.norm(other))
    if between:
        shortest = np.linalg.norm(np.cross(one, other)) / np.linalg.norm(one - other)
    assert float((weights @ J).norm()) == pytest.approx(shortest, rel=1e-6, abs=1e-9)


def best_of_ball(J: np.ndarray, c: float) -> float:
    """CAGrad's primal, by directions on the rim of its disc, in the plane of the two gradients."""
    mean = J.mean(0)
    turns = np.linspace(0, 2 * np.pi, 20_001)
    rim = mean[:2] + c * np.linalg.norm(mean) * np.stack([np.cos(turns), np.sin(turns)], 1)
    return float((rim @ J[:, :2].T).min(1).max())


@for_each("c", [0.1, 0.5, 0.9])
@pairs
def test_cagrad_is_the_best_for_the_worse_off(angle: float, ratio: float, c: float):
    J = pair(angle, ratio)
    d, mean = cagrad(J @ J.T, make_generator(), c) @ J, J.mean(0)
    assert float((d - mean).norm()) == pytest.approx(c * float(mean.norm()), rel=1e-6)
    assert float((J @ d).min()) >= best_of_ball(J.numpy(), c) - 1e-9


def test_cagrad_of_no_radius_is_the_mean_and_its_radius_is_less_than_one():
    assert cagrad(torch.tensor([[1.0, -0.3], [-0.3, 2.0]]), make_generator(), 0.0).tolist() == [0.5, 0.5]
    for c in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"c must be in \[0, 1\), found"):
            cagrad(torch.eye(2), make_generator(), c)


@pairs
def test_upgrad_averages_the_projections_onto_the_dual_cone(angle: float, ratio: float):
    J = pair(angle, ratio)
    expected = np.zeros(3)
    for g in J.numpy():
        # the nearest x with J x >= 0 is g + J^T v, v >= 0, as short as can be
        pull, _ = nnls(J.numpy().T, -g)
        expected += (g + pull @ J.numpy()) / 2
    assert np.allclose(direction("upgrad", J), expected, rtol=0, atol=1e-9)


def regularise(J: Tensor, eps: float) -> Tensor:
    """TorchJD's UPGrad: on the Gramian over its trace plus eps, or on eps alone below that trace."""
    G = J @ J.T
    G = (G / G.trace() if float(G.trace()) >= eps else 0 * G) + eps * torch.eye(2, dtype=J.dtype)
    L = np.linalg.cholesky(G.numpy())
    weights = np.zeros(2)
    for u in np.eye(2) / 2:
        # the smallest v^T G v with v >= u
        pull, _ = nnls(L.T, -L.T @ u)
        weights += u + pull
    return torch.from_numpy(weights) @ J


# relative distances of TorchJD 0.18's own UPGrad(), with its defaults, from ours at an angle of 2
TORCHJD = {1.0: 5.87600e-5, 0.1: 4.37481e-3, 0.01: 0.227882}


@for_each("ratio", TORCHJD)
def test_upgrad_of_torchjd_is_another_by_its_regularisation(ratio: float):
    J = pair(2.0, ratio)
    ours, theirs = direction("upgrad", J), regularise(J, 1e-4)
    assert torch.allclose(regularise(J, 1e-12), ours, rtol=0, atol=1e-6)
    assert float((ours - theirs).norm() / ours.norm()) == pytest.approx(TORCHJD[ratio], rel=1e-5)
    assert (float(J[0] @ theirs) < 0) == (ratio == 0.01), "it opposes the smaller one"
    small = pair(2.0, ratio) * 5e-3
    assert torch.allclose(regularise(small, 1e-4), small.mean(0), rtol=0, atol=1e-12)


def test_upgrad_says_how_far_that_of_torchjd_is():
    shares = [f"{share:.1g}" for share in TORCHJD.values()]
    assert shares == ["6e-05", "0.004", "0.2"]
    assert all(figure in str(upgrad.__doc__) for figure in ("6e-5", *shares[1:]))
    assert all(word in UPGrad.about.deviations for word in ("TorchJD", "1e-4", "oppose"))


@for_each("dtype", [torch.float32, torch.float64])
@for_each("ratio", [1.0, 1e-3])
@for_each("rule", ["pcgrad", "nash", "mgda", "upgrad"])
def test_of_opposite_gradients_nothing_is_left(rule: RuleName, ratio: float, dtype: torch.dtype):
    J = torch.tensor([[ratio, 0.0], [-1.0, 0.0]], dtype=dtype)
    assert float(direction(rule, J).norm()) < 1e-3 * (1 if rule == "nash" else ratio)


def test_parallel_gradients_in_figures():
    J = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    directions = {rule: direction(rule, J).tolist() for rule in ("nash", "mgda", "cagrad", "upgrad")}
    expected = {"nash": math.sqrt(2), "mgda": 1.0, "cagrad": 3.0, "upgrad": 2.0}
    assert directions == {rule: pytest.approx([value, 0.0]) for rule, value in expected.items()}


# --- what they are made of


def test_the_gramian_and_the_combination_are_those_of_the_whole_vector():
    J = jacobian(0, 3, 10)
    vectors = [{"a": row[:4].reshape(2, 2), "b": row[4:]} for row in J]
    assert torch.allclose(gramian(list(vectors)), J @ J.T, rtol=0, atol=1e-14)
    weights = pcgrad(J @ J.T, make_generator())
    combination = combine(list(vectors), weights)
    assert torch.allclose(
        torch.cat([combination["a"].flatten(), combination["b"]]), weights @ J, rtol=0, atol=1e-14
    )
    assert float(dot(vectors[0], vectors[1])) == pytest.approx(float(J[0] @ J[1]))
    assert torch.equal(vectors[0]["b"], J[0, 4:])  # nothing was combined in place

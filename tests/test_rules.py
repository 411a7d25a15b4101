"""Rules: closed forms, the values that others pin, and the properties that make them rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from unweave.params import combine, dot, gramian
from unweave.rules import RULES, RuleName, gem, pcgrad, project, total

TWO: tuple[RuleName, ...] = ("total", "pcgrad", "project", "gem")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def jacobian(seed: int, m: int, n: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(m, n, generator=seeded(seed), dtype=torch.float64)


def direction(rule: RuleName, J: Tensor, seed: int = 0) -> Tensor:
    return RULES[rule](J @ J.T, seeded(seed)) @ J


def close(a: Tensor, b: Tensor, J: Tensor) -> bool:
    """Equal up to rounding at the scale of the gradients."""
    return float((a - b).norm()) <= 1e-9 * float(J.norm())


jacobians = st.builds(
    jacobian,
    st.integers(0, 10**6),
    st.just(2),
    st.integers(1, 6),
    st.sampled_from([1e-6, 1e-2, 1.0, 1e2, 1e6]),
)


# --- properties


@pytest.mark.parametrize("rule", TWO)
def test_one_term_is_followed_as_it_is(rule: RuleName):
    assert RULES[rule](torch.tensor([[3.0]]), seeded()).tolist() == [1.0]
    assert RULES[rule](torch.tensor([[0.0]]), seeded()).tolist() == [1.0]


@settings(deadline=None, max_examples=50)
@given(jacobians)
def test_pcgrad_opposes_neither_of_two(J: Tensor):
    d = direction("pcgrad", J)
    assert bool((J @ d >= -1e-9 * float((J @ J.T).diagonal().max())).all())


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
def test_pcgrad_of_two_does_not_depend_on_their_order(J: Tensor):
    for rule in ("pcgrad", "total"):
        assert close(direction(rule, J), direction(rule, J.flip(0)), J)


@settings(deadline=None, max_examples=50)
@given(jacobians, st.sampled_from([1e-3, 7.0, 1e4]))
def test_directions_scale_with_the_gradients(J: Tensor, by: float):
    for rule in ("total", "pcgrad", "project"):
        assert close(direction(rule, by * J), by * direction(rule, J), by * J)


@pytest.mark.parametrize("rule", TWO)
def test_a_gradient_of_zero_is_no_division_by_zero(rule: RuleName):
    for J in (
        torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [1.0, 2.0]]),
        torch.zeros(2, 2),
    ):
        assert bool(torch.isfinite(direction(rule, J)).all())


# --- closed forms


def projected(g: Tensor, others: list[Tensor]) -> Tensor:
    """Algorithm 1 of the paper on vectors, for one gradient."""
    for other in others:
        overlap = g @ other
        if overlap < 0:
            g = g - overlap / (other @ other) * other
    return g


@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_is_its_algorithm_box(seed: int):
    J = jacobian(seed, 4, 3)
    drawn, expected = seeded(seed), torch.zeros(3, dtype=torch.float64)
    for i in range(4):
        expected += projected(J[i], [J[j] for j in torch.randperm(4, generator=drawn).tolist() if j != i])
    assert torch.allclose(direction("pcgrad", J, seed), expected, rtol=0, atol=1e-12)


def test_pcgrad_draws_its_order_from_the_generator():
    J = jacobian(3, 4, 3)
    same = [direction("pcgrad", J, 0) for _ in range(2)]
    assert torch.equal(*same)
    assert len({tuple(direction("pcgrad", J, seed).tolist()) for seed in range(8)}) > 1


@pytest.mark.parametrize("seed", range(5))
def test_project_is_the_nearest_direction_that_does_not_oppose(seed: int):
    J = jacobian(seed, 2, 5)
    pull, _ = nnls(J[1].numpy()[:, None], -J[0].numpy())  # the dual: the smallest |g_1 + v g_2| with v >= 0
    assert np.allclose(direction("project", J), J[0] + pull[0] * J[1], atol=1e-12)


def test_gem_adds_at_least_half_of_the_second_where_they_conflict():
    slight = torch.tensor([[1.0, 0.0], [-0.1, 1.0]], dtype=torch.float64)
    strong = torch.tensor([[5.0, 0.0], [-1.0, 0.1]], dtype=torch.float64)
    assert gem(slight @ slight.T, seeded()).tolist() == [1.0, 0.5]
    assert gem(strong @ strong.T, seeded())[1] == pytest.approx(5 / (1.01 + 1e-3))


def test_total_is_the_sum():
    assert total(torch.eye(3), seeded()).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("rule", [project, gem])
def test_rules_for_two_refuse_three(rule):
    with pytest.raises(
        ValueError,
        match=f"rule '{rule.__name__}' takes the gradient to follow and the one to respect, found 3",
    ):
        rule(torch.eye(3), seeded())


# --- what they are made of


def test_the_gramian_and_the_combination_are_those_of_the_whole_vector():
    J = jacobian(0, 3, 10)
    vectors = [{"a": row[:4].reshape(2, 2), "b": row[4:]} for row in J]
    assert torch.allclose(gramian(list(vectors)), J @ J.T, rtol=0, atol=1e-14)
    weights = pcgrad(J @ J.T, seeded())
    combined = combine(list(vectors), weights)
    assert torch.allclose(
        torch.cat([combined["a"].flatten(), combined["b"]]), weights @ J, rtol=0, atol=1e-14
    )
    assert float(dot(vectors[0], vectors[1])) == pytest.approx(float(J[0] @ J[1]))
    assert torch.equal(vectors[0]["b"], J[0, 4:])  # nothing was combined in place

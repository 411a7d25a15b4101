"""Importances against gradients written out, and masks that choose exactly what they say."""

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from for_each import for_each
from smooth import flat, problem
from unweave.descent.importance import fisher, gradients, invert, match_names, ratio, saliency, snip, top
from unweave.descent.objective import nll
from unweave.errors import Failed
from unweave.problem import Problem
from unweave.tasks import evaluating
from unweave.weights.params import multiply


def by_hand(of: Problem, size: int) -> list[Tensor]:
    """The mean gradient of each forget batch, in the order that the problem's generator gives."""
    order = torch.randperm(len(of.split.forget), generator=torch.Generator().manual_seed(0))
    mean_gradients = []
    with evaluating(of.model):
        for ids in of.split.forget[order].split(size):
            (raw,) = of.split.train.stream([ids])
            loss = nn.functional.cross_entropy(of.model(*raw.inputs), raw.label)
            mean_gradients.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(of.params.values()))])
            )
    return mean_gradients


def close(scores, expected: Tensor) -> bool:
    return torch.allclose(flat(scores), expected, rtol=0, atol=1e-14)


@for_each("size", [1, 5, 12])
def test_each_is_its_formula(size: int):
    gs = torch.stack(by_hand(problem(), size))
    theta = flat(problem().params)
    of = nll("forget")
    assert close(saliency(problem(), of, batch=size), gs.sum(0).abs())
    assert close(snip(problem(), of, batch=size, batches=None), theta.abs() * gs.abs().sum(0))
    assert close(snip(problem(), of, batch=size), theta.abs() * gs[0].abs())
    assert close(fisher(problem(), of, batch=size), gs.square().mean(0))


def test_saliency_and_the_sum_of_sizes_are_two_things():
    gs = torch.stack(by_hand(problem(), 1))
    assert not torch.allclose(gs.sum(0).abs(), gs.abs().sum(0), rtol=0.1)


def noisy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)).double()


def test_they_are_taken_in_evaluation_mode_and_leave_no_trace():
    of = problem(noisy())
    of.model[2].eval()
    modes = [m.training for m in of.model.modules()]
    state = {name: value.clone() for name, value in of.model.state_dict().items()}
    first, second = (flat(saliency(problem(of.model), nll("forget"))) for _ in range(2))
    assert torch.equal(first, second)
    assert [m.training for m in of.model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in of.model.state_dict().items())
    assert all(p.grad is None for p in of.model.parameters())


def test_modes_come_back_when_a_pass_fails():
    of = problem(noisy())
    with suppress(KeyError), evaluating(of.model):
        assert not any(m.training for m in of.model.modules())
        raise KeyError
    assert all(m.training for m in of.model.modules())


def test_passes_are_counted():
    of = problem()
    saliency(of, nll("forget"), batch=5)
    assert (of.cost.gradients, of.cost.examples) == (3, 12)


def test_gradients_come_in_a_random_order_that_the_seed_fixes():
    first, second, other = (
        torch.stack([flat(g) for g in gradients(problem(seed=seed), nll("forget"), batch=5)])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_ratio_has_a_floor():
    over, under = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 0.0])}
    assert ratio(over, under, floor=0.5)["w"].tolist() == [3.0, 1.0]


# --- masks


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.floats(0, 1))
def test_top_chooses_exactly_the_fraction_with_the_highest_scores(values: list[int], fraction: float):
    scores = {
        "a": torch.tensor(values[::2], dtype=torch.float),
        "b": torch.tensor(values[1::2], dtype=torch.float),
    }
    mask = top(scores, fraction)
    selection, all_scores = flat(mask).bool(), flat(scores)
    assert int(selection.sum()) == round(fraction * len(values))
    if bool(selection.any()) and not bool(selection.all()):
        assert float(all_scores[selection].min()) >= float(all_scores[~selection].max())
    assert {name: m.shape for name, m in mask.items()} == {name: s.shape for name, s in scores.items()}


def test_of_equal_scores_the_first_goes_first():
    mask = top({"a": torch.ones(2, 3), "b": torch.tensor([2.0, 1.0])}, 0.5)
    assert mask["a"].tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert mask["b"].tolist() == [1.0, 0.0]


def test_top_ranks_across_the_model_and_not_within_a_weight():
    mask = top({"small": torch.full((4,), 0.1), "large": torch.full((4,), 9.0)}, 0.5)
    assert mask["small"].tolist() == [0.0] * 4
    assert mask["large"].tolist() == [1.0] * 4


@for_each("fraction", [-0.1, 1.5, float("nan")])
def test_fractions_outside_the_range_are_refused(fraction: float):
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\], found"):
        top({"w": torch.ones(3)}, fraction)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(Failed, match="scores of weights are NaN"):
        top({"w": torch.tensor([1.0, float("nan")])}, 0.5)


def test_names_choose_weights_by_pattern():
    of = problem()
    mask = match_names(of.params, r"^2\.|0\.bias")
    assert {name: float(m.mean()) for name, m in mask.items()} == {
        "0.weight": 0,
        "0.bias": 1,
        "2.weight": 1,
        "2.bias": 1,
    }
    assert not any(m.requires_grad for m in mask.values())
    with pytest.raises(
        ValueError, match=r"no weight matches 'layer9'; the first are 0\.weight, 0\.bias, 2\.weight"
    ):
        match_names(of.params, "layer9")


def test_masks_multiply_and_invert():
    a, b = {"w": torch.tensor([1.0, 0.5, 0.0])}, {"w": torch.tensor([1.0, 0.5, 1.0])}
    assert multiply(a, b)["w"].tolist() == [1.0, 0.25, 0.0]
    assert invert(a)["w"].tolist() == [0.0, 0.5, 1.0]

"""One-shot edits: what they change, what they leave, and from where they draw."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import every_family
from smooth import batch, bits, flat, net, problem
from unweave.descent.edit import (
    dampen,
    grow_head,
    perturb,
    reinitialize,
    restart,
    shift,
    shrink,
    shrink_and_perturb,
)
from unweave.descent.importance import match_names, top
from unweave.problem import Problem


def make_tied_model() -> nn.Sequential:
    """Two layers that share one matrix, and a normalisation."""
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 4)).double()
    model[2].weight = model[0].weight
    return model


def before(of: Problem) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in of.params.items()}


def test_only_masked_weights_are_redrawn():
    of = problem()
    start = before(of)
    mask = top({name: torch.rand_like(p) for name, p in of.params.items()}, 0.4)
    reinitialize(of, mask)
    for name, p in of.params.items():
        selection = mask[name].bool()
        assert torch.equal(p[~selection], start[name][~selection])
        assert not bool((p[selection] == start[name][selection]).any())


def test_redrawn_values_are_those_of_torchs_layers():
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), whose variance is 1 / (3 fan_in), from the problem's generator."""
    model = nn.Sequential(nn.Conv2d(4, 64, 3), nn.Flatten(), nn.Linear(64, 200))
    of = problem()
    of.model = model
    state = torch.get_rng_state()
    reinitialize(of, match_names(of.params, ""))
    assert torch.equal(torch.get_rng_state(), state)
    for weight, fan_in in ((model[0].weight, 36), (model[2].weight, 64)):
        bound = 1 / math.sqrt(fan_in)
        assert 0.99 * bound < float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.1)
    assert not bool(model[0].bias.detach().any())
    assert not bool(model[2].bias.detach().any())


def test_dampening_never_grows_a_weight():
    of = problem()
    start = before(of)
    factors = {name: torch.rand_like(p).detach() * 3 for name, p in of.params.items()}
    dampen(of, factors)
    for name, p in of.params.items():
        assert torch.equal(p.detach(), start[name] * factors[name].clamp(max=1))


def test_noise_has_the_standard_deviation_of_each_weight():
    of = problem(nn.Sequential(nn.Linear(6, 4000), nn.Linear(4000, 4)).double())
    start = before(of)
    std = {name: torch.full_like(p, float(i)).detach() for i, (name, p) in enumerate(of.params.items())}
    perturb(of, std)
    for i, (name, p) in enumerate(of.params.items()):
        if p.numel() > 1000:
            assert float((p.detach() - start[name]).std()) == pytest.approx(i, rel=0.05)
    assert torch.equal(of.model[0].weight.detach(), start["0.weight"])


def test_a_shift_is_an_addition():
    of = problem()
    start, by = flat(of.params).clone(), {name: torch.randn_like(p).detach() for name, p in of.params.items()}
    shift(of, by)
    assert torch.equal(flat(of.params), start + flat(by))


def test_shrinking_leaves_normalisations_and_shrinks_tied_weights_once():
    of = problem(make_tied_model())
    of.model[3].bias.requires_grad_(False)
    start = before(of) | {"3.bias": of.model[3].bias.detach().clone()}
    shrink(of, 0.5)
    for name, p in of.model.named_parameters():
        stays = name.startswith("1.") or name == "3.bias"
        assert torch.equal(p.detach(), start[name] if stays else 0.5 * start[name]), name


def test_a_restart_is_a_fresh_model_in_the_same_weights():
    of = problem(make_tied_model())
    places = [id(p) for p in of.model.parameters()]
    of.model(batch(of, range(20)).inputs[0])  # moves the running statistics
    start = before(of)
    of.model[3].weight.requires_grad_(False)
    restart(of)
    assert [id(p) for p in of.model.parameters()] == places
    assert torch.equal(of.model[3].weight.detach(), start["3.weight"])
    assert not torch.equal(of.model[0].weight.detach(), start["0.weight"])
    assert of.model[2].weight is of.model[0].weight
    assert float(of.model[1].running_mean.abs().max()) == 0
    assert int(of.model[1].num_batches_tracked) == 0


def test_a_restart_keeps_the_modules_that_it_is_given():
    of = problem(make_tied_model())
    of.model(batch(of, range(20)).inputs[0])  # moves the running statistics
    start = {name: value.clone() for name, value in of.model.state_dict().items()}
    restart(of, keep=[of.model[0], of.model[1]])
    names = {name for name, value in of.model.state_dict().items() if not torch.equal(value, start[name])}
    assert names == {"2.bias", "3.weight", "3.bias"}  # the third shares the weight of the first


def test_a_restart_is_fixed_by_the_seed_alone():
    states = []
    for ambient in (1, 2):
        torch.manual_seed(ambient)
        of = problem(seed=3)
        restart(of)
        states.append(bits(of.model.state_dict()))
    assert states[0] == states[1]
    other = problem(seed=4)
    restart(other)
    assert bits(other.model.state_dict()) != states[0]


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_grows_by_one_output_and_keeps_the_others(bias: bool):
    of = problem(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4, bias=bias)).double())
    x = batch(of, range(5)).inputs[0]
    old = of.model(x).detach()
    grow_head(of)
    assert of.head[1].out_features == 5
    new = of.model(x).detach()
    assert new.shape == (5, 5)
    assert torch.allclose(new[:, :4], old, rtol=0, atol=1e-14)
    assert float(of.model[2].weight[4].detach().abs().max()) <= 1 / math.sqrt(8)
    assert sum(p.numel() for p in of.params.values()) == sum(p.numel() for p in of.model.parameters())


def test_only_a_linear_head_grows():
    of = problem(net())
    of.model = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 6))
    with pytest.raises(ValueError, match="only a linear head can grow, found Conv1d at '2'"):
        grow_head(of)


@pytest.mark.parametrize("family", ["batchnorm", "language"])
def test_shrinking_and_perturbing_goes_a_part_of_the_way_to_fresh_weights(family: str):
    of, twin = every_family.problem(family), every_family.problem(family)
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    fresh = dict(twin.fresh_model().named_parameters())
    shrink_and_perturb(of, 0.7)
    for name, p in of.params.items():
        assert torch.allclose(p, 0.7 * before[name] + 0.3 * fresh[name], rtol=1e-5, atol=1e-7)
    for name, value in of.model.state_dict().items():
        if name not in dict(of.model.named_parameters(remove_duplicate=False)) or "position" in name:
            assert torch.equal(value, before[name]), name


def test_all_or_nothing_is_kept_and_masked_weights_stay():
    of, twin = every_family.problem("layernorm"), every_family.problem("layernorm")
    before = {name: p.detach().clone() for name, p in of.params.items()}
    shrink_and_perturb(of, 1.0)
    assert all(torch.equal(p, before[name]) for name, p in of.params.items())
    mask = {name: (torch.arange(p.numel()).view_as(p) % 2).float() for name, p in of.params.items()}
    shrink_and_perturb(twin, 0.0, mask)
    fresh = dict(every_family.problem("layernorm").fresh_model().named_parameters())
    for name, p in twin.params.items():
        assert torch.equal(p, torch.where(mask[name] > 0, fresh[name], before[name]))


@pytest.mark.parametrize("edit", [restart, lambda of: shrink_and_perturb(of, 0.5)])
def test_a_model_with_additions_gets_no_fresh_weights(edit: Callable[[Problem], None]):
    of = problem()
    of.model.register_parameter("addition", nn.Parameter(torch.zeros(1)))
    of.build = net
    with pytest.raises(ValueError, match="fresh weights need a model as it was built"):
        edit(of)

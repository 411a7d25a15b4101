"""Starts: edits of the weights before a method, against arithmetic."""

import copy

import pytest
import torch
from torch import Tensor, nn

from every_family import MODEL_KINDS, problem
from for_each import for_each
from plain import Scaled
from unweave.descent.redraw import eligible_weights, mask_most_sensitive
from unweave.methods import Method
from unweave.methods.starts import Fresh, Redraw, ShrinkPerturb
from unweave.problem import Problem


def double(family: str = "layernorm") -> Problem:
    return problem(family, dtype=torch.float64)


def snapshot(of: Problem) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in of.model.state_dict().items()}


@pytest.mark.parametrize("family", ["batchnorm", "layernorm", "language"])
@for_each("keep", [0.0, 0.4, 1.0])
def test_shrink_perturb_ends_between_the_weights_and_fresh_ones(keep: float, family: str):
    of, twin = double(family), double(family)
    old, fresh = dict(twin.model.named_parameters()), dict(twin.fresh_model().named_parameters())
    buffers = {name: b.clone() for name, b in of.model.named_buffers()}
    ShrinkPerturb(keep)(of)
    for name, p in of.model.named_parameters():
        expected = keep * old[name] + (1 - keep) * fresh[name] if p.requires_grad else old[name]
        torch.testing.assert_close(p, expected, rtol=0, atol=1e-12, msg=name)
    assert all(torch.equal(b, buffers[name]) for name, b in of.model.named_buffers())
    assert of.cost.gradients == of.cost.examples == 0


def test_shrink_perturb_edits_the_named_weights_alone():
    of = double()
    before = snapshot(of)
    ShrinkPerturb(0.5, where=r"^6\.")(of)
    names = {name for name, value in of.model.state_dict().items() if not torch.equal(value, before[name])}
    assert names == {"6.weight", "6.bias"}


@pytest.mark.parametrize("eligible", [None, "", r"^0\."])
@for_each("fraction", [0.0, 0.2, 1.0])
def test_redraw_changes_the_most_sensitive_weights_and_no_others(fraction: float, eligible: str | None):
    of, twin = double(), double()
    before, masks = snapshot(of), mask_most_sensitive(twin, fraction, eligible_weights(twin, eligible))
    Redraw(fraction, eligible)(of)
    for name, p in of.params.items():
        assert torch.equal(p != before[name], masks[name].bool()), name
        bound = p[0].numel() ** -0.5 if p.ndim > 1 else 0.0  # as torch's layers draw; biases become zero
        assert bool((p[masks[name].bool()].abs() <= bound).all())
    assert of.cost.examples == len(of.split.forget) and of.cost.gradients == 1


def test_redraw_takes_a_fraction_of_the_eligible_weights():
    of = double("batchnorm")
    before = snapshot(of)
    Redraw(0.1, "conv")(of)
    eligible = of.params["conv1.weight"].numel() + of.params["conv2.weight"].numel()
    count = sum(int((p != before[name]).sum()) for name, p in of.params.items())
    assert count == round(0.1 * eligible)


@for_each("family", MODEL_KINDS)
def test_fresh_weights_are_those_of_a_new_model_and_frozen_ones_stay(family: str):
    of, twin = problem(family), problem(family)
    before, fresh = snapshot(of), twin.fresh_model()
    Fresh()(of)
    for name, value in of.model.state_dict().items():
        stays = name in dict(of.model.named_parameters()) and not of.model.get_parameter(name).requires_grad
        assert torch.equal(value, before[name] if stays else fresh.state_dict()[name]), name


@pytest.mark.parametrize("start", [ShrinkPerturb(), Fresh()], ids=repr)
def test_a_module_whose_weights_cannot_be_drawn_is_named_before_anything_moves(start: Method):
    of = problem("layernorm")
    of.model = nn.Sequential(nn.Linear(6, 6), Scaled(), nn.Linear(6, 4))
    before = copy.deepcopy(of.model.state_dict())
    with pytest.raises(ValueError, match=r"module '1' has weights but no reset_parameters\(\): give its"):
        start(of)
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
    of.build = lambda: nn.Sequential(nn.Linear(6, 6), Scaled(), nn.Linear(6, 4))
    start(of)
    assert not torch.equal(of.model.state_dict()["0.weight"], before["0.weight"])


@for_each(
    ("make", "message"),
    [
        (lambda: ShrinkPerturb(1.5), r"keep must be in \[0, 1\], found 1.5"),
        (lambda: ShrinkPerturb(-0.1), r"keep must be in \[0, 1\], found -0.1"),
        (lambda: Redraw(1.01), r"fraction must be in \[0, 1\], found 1.01"),
        (lambda: Redraw(eligible="[head"), "eligible must be a regular expression"),
        (lambda: ShrinkPerturb(where="[head"), "where must be a regular expression"),
    ],
)
def test_settings_without_sense_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_pattern_that_matches_no_weight_is_refused():
    with pytest.raises(ValueError, match="no weight matches 'layer9'"):
        ShrinkPerturb(where="layer9")(problem("layernorm"))
    with pytest.raises(ValueError, match="no weight can be redrawn"):
        Redraw(eligible="layer9")(problem("layernorm"))

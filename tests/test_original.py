"""The original: what every stage and every teacher sees of the model as it was given."""

import copy

import pytest
import torch
from torch import nn

from every_family import MODEL_KINDS, problem
from for_each import for_each
from test_methods import shorten_method, snapshot
from unweave.methods import METHODS
from unweave.methods.lur import LUR
from unweave.methods.salun import SalUn
from unweave.problem import Problem, frozen_copy
from unweave.targets import Level


def problem_with_model(family: str) -> Problem:
    """A problem whose caller still holds the model."""
    of = problem(family)
    of.caller_model = copy.deepcopy(of.model)
    return of


def share_memory(a: nn.Module, b: nn.Module) -> list[bool]:
    """Per weight and buffer whether both lie in the same memory."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return [x.data_ptr() == y.data_ptr() for x, y in pairs]


@torch.no_grad()
def erase(of: Problem) -> None:
    """Sets all trainable weights to zero."""
    for p in of.params.values():
        p.zero_()


@for_each("family", MODEL_KINDS)
def test_it_shares_the_memory_of_what_was_given_frozen_and_in_evaluation_mode(family: str):
    of = problem_with_model(family)
    assert of.caller_model is not None
    assert all(share_memory(of.original, of.caller_model)) and not any(share_memory(of.original, of.model))
    assert not any(p.requires_grad for p in of.original.parameters())
    assert not any(m.training for m in of.original.modules())
    assert [m.training for m in of.caller_model.modules()] == [m.training for m in of.model.modules()]
    assert {n for n, p in of.caller_model.named_parameters() if p.requires_grad} == set(of.params)
    assert of.original is of.original


@pytest.mark.parametrize("method", [LUR(), LUR(retain="both", forget=Level()), SalUn()], ids=repr)
def test_it_survives_a_method_and_leaves_what_was_given(method: LUR | SalUn):
    of = problem_with_model("batchnorm")
    assert of.caller_model is not None
    before, modes = snapshot(of.caller_model), [m.training for m in of.caller_model.modules()]
    shorten_method(method)(of)
    assert not torch.equal(of.model.state_dict()["fc.weight"], before["fc.weight"])
    for model in (of.caller_model, of.original):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in of.caller_model.modules()] == modes
    assert all(p.grad is None for p in of.caller_model.parameters())


def test_without_it_a_copy_is_kept_at_the_first_read():
    of = problem("layernorm")
    before, original = snapshot(of.model), of.original
    assert not any(share_memory(original, of.model))
    erase(of)
    assert of.original is original
    for model in (original, of.problem_copy("twin").model):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_made_beside_begins_at_the_original_after_an_edit():
    of = problem_with_model("layernorm")
    erase(of)
    twin = of.problem_copy("twin").model
    assert of.caller_model is not None and not any(share_memory(twin, of.caller_model))
    for name, value in of.caller_model.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value)


def test_the_same_request_over_other_data_has_the_same_original():
    of = problem_with_model("layernorm")
    assert all(share_memory(of.with_split(of.split).original, of.original))


@pytest.mark.parametrize("share", [False, True])
def test_tied_weights_stay_tied(share: bool):
    of = problem("language")
    twin = frozen_copy(of.model, share=share)
    assert twin.head.weight is twin.embed.weight and twin.head.weight is not of.model.head.weight
    assert all(share_memory(twin, of.model)) == share
    tokens = of.split.train.inputs[0][:3, :-1]
    with torch.no_grad():
        assert torch.equal(twin(tokens), copy.deepcopy(of.model).eval()(tokens))


def test_what_is_written_where_memory_is_shared_is_seen():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    own_copy, shared_copy = frozen_copy(model), frozen_copy(model, share=True)
    with torch.no_grad():
        model[0].weight.fill_(7.0)
    model(torch.randn(5, 2))
    for name in ("0.weight", "1.running_mean"):
        value = model.state_dict()[name]
        assert torch.equal(shared_copy.state_dict()[name], value)
        assert not torch.equal(own_copy.state_dict()[name], value)


@for_each("name", ["lur", "lur-match", "salun", "bad-teacher", "scrub", "random-label"])
def test_a_method_ends_at_the_same_bits_whether_the_caller_holds_the_model_or_not(name: str):
    held, free = problem_with_model("batchnorm"), problem("batchnorm")
    for of in (held, free):
        shorten_method(METHODS[name])(of)
    assert all(torch.equal(v, free.model.state_dict()[n]) for n, v in held.model.state_dict().items())

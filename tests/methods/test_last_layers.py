"""CF-k and EU-k: the last k layers against plain torch, and what comes before them bit for bit."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from every_family import problem
from for_each import for_each
from plain import Recorder, Sgd, ce, grad, moved_apart, recorded, whole
from unweave.methods.last_layers import CFk, EUk, modules_before
from unweave.methods.simple import FineTune, FromScratch
from unweave.problem import Problem

BOTH = [CFk(), EUk()]
LAST_TWO = ("downsample", "fc")
"""The last two of conv1, bn1, conv2, bn2, downsample.0, downsample.1, fc; the first has a BatchNorm."""


def state(of: Problem) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in of.model.state_dict().items()}


def train_last_two(plain: nn.Module, recorder: Recorder, method: CFk | EUk) -> None:
    """Plain training of the last two layers: those before run as they do in evaluation."""
    plain.train()
    for name, p in plain.named_parameters():
        p.requires_grad_(name.startswith(LAST_TWO))
    plain.bn1.eval(), plain.bn2.eval()
    sgd = Sgd(plain, method.how)
    for batch in recorder.drawn:
        sgd.step(grad(plain, ce(plain, batch)))


@pytest.mark.parametrize("steps", [1, 3])
def test_cf_k(steps: int):
    of, recorder = recorded("batchnorm")
    plain, method = copy.deepcopy(of.model), whole(CFk(k=2), steps=steps)
    method(of)
    assert all(sorted(batch.ids.tolist()) == of.split.retain.tolist() for batch in recorder.drawn)
    train_last_two(plain, recorder, method)
    assert len(recorder.drawn) == steps and moved_apart(of.model, plain) < 1e-12  # running statistics too


@pytest.mark.parametrize("steps", [1, 3])
def test_eu_k(steps: int):
    of, recorder = recorded("batchnorm")
    plain, method = copy.deepcopy(of.model), whole(EUk(k=2), steps=steps)
    fresh = recorded("batchnorm")[0].fresh_model()
    for name in LAST_TWO:
        plain.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
    method(of)
    assert all(sorted(batch.ids.tolist()) == of.split.retain.tolist() for batch in recorder.drawn)
    train_last_two(plain, recorder, method)
    assert len(recorder.drawn) == steps and moved_apart(of.model, plain) < 1e-12


@pytest.mark.parametrize("k", [4, 9])
@for_each(("method", "limit"), [(CFk(), FineTune()), (EUk(), FromScratch())])
def test_all_layers_are_the_last_ones_in_the_limit(method: CFk | EUk, limit: FineTune | FromScratch, k: int):
    some, full = recorded("batchnorm")[0], recorded("batchnorm")[0]
    whole(replace(method, k=k), steps=3)(some)
    whole(limit, steps=3)(full)
    assert moved_apart(some.model, full.model) == 0


@for_each("k", [1, 2, 3])
def test_nothing_of_the_layers_that_start_afresh_is_left(k: int):
    one, other = recorded("batchnorm")[0], recorded("batchnorm")[0]
    earlier = {id(m) for m in modules_before(other, k)}
    for module in other.model.modules():
        if id(module) not in earlier:
            for value in module.state_dict().values():
                value.mul_(3)  # the last layers of another original
    assert moved_apart(one.model, other.model) > 0.1
    for of in (one, other):
        whole(EUk(k=k), steps=3)(of)
    assert moved_apart(one.model, other.model) == 0


# --- what is frozen: weight decay, momentum and statistics moved it in code released for other methods


@for_each("changes", [{}, {"optimizer": "adamw"}, {"ema": 0.5}])
@for_each("method", BOTH)
@for_each(
    ("family", "k", "last"),
    [
        ("batchnorm", 1, "fc"),
        ("batchnorm", 2, LAST_TWO),
        ("batchnorm", 3, ("conv2", "bn2", *LAST_TWO)),
        ("layernorm", 2, ("3.", "4.", "6.")),
    ],
)
def test_the_last_layers_move_and_the_others_stay_bit_for_bit(
    family: str, k: int, last: str | tuple[str, ...], method: CFk | EUk, changes: dict
):
    of = recorded(family)[0]
    before = state(of)
    whole(replace(method, k=k), steps=5, weight_decay=0.5, **changes)(of)
    names = {name for name, value in of.model.state_dict().items() if not torch.equal(value, before[name])}
    assert names == {name for name in before if name.startswith(last)}


def test_modes_come_back():
    of = recorded("batchnorm")[0]
    of.model.train().bn2.eval()
    before = [m.training for m in of.model.modules()]
    whole(CFk(k=1))(of)
    assert [m.training for m in of.model.modules()] == before


def test_a_weight_that_the_user_froze_stays():
    of = recorded("batchnorm")[0]
    of.model.fc.bias.requires_grad_(False)
    before = state(of)
    whole(EUk(k=1))(of)
    assert torch.equal(of.model.fc.bias, before["fc.bias"])
    assert not torch.equal(of.model.fc.weight, before["fc.weight"])


# --- what is refused


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_a_weight_that_an_earlier_layer_shares_is_frozen_with_it(method: CFk | EUk):
    def tied() -> Problem:
        of = recorded("layernorm")[0]
        of.model.insert(6, nn.Linear(16, 16).double())
        of.model[6].weight, of.model[6].bias = of.model[3].weight, of.model[3].bias
        return of

    of = tied()
    before = state(of)
    whole(replace(method, k=2))(of)
    assert [
        name for name, value in of.model.state_dict().items() if not torch.equal(value, before[name])
    ] == [
        "7.weight",
        "7.bias",
    ]
    of.model = of.model[:7]
    with pytest.raises(ValueError, match="no trainable weight that earlier ones do not share"):
        whole(replace(method, k=1))(of)


@pytest.mark.parametrize("kind", [CFk, EUk])
def test_no_layer_at_all_is_refused(kind: type[CFk] | type[EUk]):
    with pytest.raises(ValueError, match=r"k must be in \[1, inf\), found 0"):
        kind(k=0)


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_a_denoiser_is_refused_before_it_changes(method: CFk | EUk):
    of = problem("denoiser")
    before = state(of)
    with pytest.raises(ValueError, match="family classifier, found diffusion"):
        method(of)
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())

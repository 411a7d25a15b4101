"""AdamW with states of 8 bits moves weights about as AdamW does; without its library it says so."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from smooth import source
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.descent.optimizer_state import zero_where
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier

CLASSES = 4
HOW = Descent(optimizer="adamw8bit", lr=0.01, steps=5, batch=16)
installed = find_spec("torchao") is not None


def problem() -> Problem:
    """A net with a tensor of 8,192 weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 128), nn.Tanh(), nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, CLASSES))
    data = source(45, 1, torch.float32)
    split = Split(data, range(0, 45, 4), source(24, 2, torch.float32))
    return Problem(Classifier(CLASSES), model, split, torch.Generator().manual_seed(0))


def weight_changes(how: Descent, where: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    of = problem()
    start = {name: p.detach().clone() for name, p in of.params.items()}
    descend(of, how, Phase([nll("retain")], where=where))
    return {name: p.detach() - start[name] for name, p in of.params.items()}


@pytest.mark.skipif(installed, reason="torchao is installed")
def test_without_its_library_it_names_the_extra():
    with pytest.raises(ValueError, match=r"needs torchao, .* pip install 'unweave\[eight-bit\]'$"):
        weight_changes(HOW)


@pytest.mark.skipif(not installed, reason="torchao is not installed")
class TestTorchao:
    def test_it_moves_weights_about_as_adamw(self):
        ours, theirs = weight_changes(HOW), weight_changes(replace(HOW, optimizer="adamw"))
        for name, expected in theirs.items():
            assert (ours[name] - expected).norm() < 0.2 * expected.norm(), name

    def test_its_states_take_a_byte_per_weight(self):
        weights = list(problem().params.values())
        update = HOW.optimizer_over(weights)
        for p in weights:
            p.grad = torch.ones_like(p)
        update.step()
        large = update.state[weights[2]]["exp_avg"]
        assert large.shape == (64, 128) and large.codes.dtype == torch.uint8

    def test_masked_weights_stay(self):
        of = problem()
        where = {name: (torch.rand(p.shape) > 0.5).float() for name, p in of.params.items()}
        for name, change in weight_changes(HOW, where).items():
            assert not change[where[name] == 0].any() and change.any()


def test_a_whole_state_is_zeroed_in_place():
    state, mask = torch.ones(3), torch.tensor([True, False, True])
    zero_where(state, mask)
    assert state.tolist() == [0, 1, 0]

"""The edits that hide what a deletion changed."""

import copy

import pytest
import torch
from torch import nn

from unweave.data.datasets import load
from unweave.methods.defences import Obfuscate, Prune
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.tasks.models import build


def problem_of(model: nn.Module) -> Problem:
    train, test = load("digits")
    return Problem(Classifier(10), model, Split(train, [0], test), torch.Generator().manual_seed(0))


def small() -> nn.Module:
    torch.manual_seed(0)
    return build("mlp", 10, {"hidden": 64})


def test_the_noise_is_relative_to_each_weight_tensor() -> None:
    model = small()
    with torch.no_grad():
        next(model.parameters()).mul_(100)
    before = copy.deepcopy(model)
    Obfuscate(noise=0.1)(problem_of(model))
    for old, new in zip(before.state_dict().values(), model.state_dict().values(), strict=True):
        size = float(old.square().mean().sqrt())
        assert float((new - old).std()) / size == pytest.approx(0.1, rel=0.5 if old.ndim < 2 else 0.1)


def test_the_smallest_weights_of_matrices_are_pruned_across_the_model() -> None:
    model = small()
    before = torch.cat([p.detach().abs().flatten() for p in model.parameters() if p.ndim == 2])
    biases = [p.clone() for p in model.parameters() if p.ndim == 1]
    Prune(fraction=0.3)(problem_of(model))
    after = torch.cat([p.detach().abs().flatten() for p in model.parameters() if p.ndim == 2])
    is_pruned = after == 0
    assert int(is_pruned.sum()) == len(before) - round(0.7 * len(before))
    assert float(before[is_pruned].max()) <= float(before[~is_pruned].min())
    assert torch.equal(after[~is_pruned], before[~is_pruned])
    assert all(
        torch.equal(a, b) for a, b in zip(biases, (p for p in model.parameters() if p.ndim == 1), strict=True)
    )


def test_a_model_whose_matrices_are_frozen_has_nothing_to_prune() -> None:
    model = small()
    for p in model.parameters():
        p.requires_grad = p.ndim == 1
    with pytest.raises(ValueError, match="prune needs a trainable matrix or kernel, found none"):
        Prune()(problem_of(model))


@pytest.mark.parametrize("make", [lambda: Obfuscate(noise=0), lambda: Prune(fraction=1.5)])
def test_settings_outside_their_range_are_refused(make) -> None:
    with pytest.raises(ValueError, match="must be in"):
        make()

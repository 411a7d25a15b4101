"""Training: what starts equal stays equal, and a kept model is the model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import every_family
from unweave.data.in_memory import Resident
from unweave.descent import train
from unweave.descent.descend import Descent
from unweave.descent.train import digest, train_model
from unweave.problem import Problem
from unweave.record import checkpoint
from unweave.split import Split
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.schedule import Schedule

HOW = Descent(lr=0.1, steps=5, batch=16)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture
def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 6, generator=generator), torch.randint(3, (60,), generator=generator)
    return Split(Resident(inputs[:40], labels[:40]), list(range(8)), Resident(inputs[40:], labels[40:]))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_original_and_retrained_of_a_seed_begin_at_the_same_weights(split) -> None:
    how = Descent(lr=1e-30, steps=1)
    mixed, retain = (train_model(how, build, split, part, 3).model for part in ("mixed", "retain"))
    assert torch.equal(weights(mixed), weights(retain))
    assert not torch.equal(weights(mixed), weights(train_model(how, build, split, "mixed", 4).model))


def test_one_step_is_the_arithmetic(split) -> None:
    torch.manual_seed(5)
    model = build()
    ids = split.retain
    source = split.train
    assert isinstance(source, Resident)
    loss = F.cross_entropy(model(source.inputs[ids]), source.labels[ids])
    expected = weights(model) - 0.25 * torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])]
    )
    trained = train_model(Descent(lr=0.25, steps=1, batch=100), build, split, "retain", 5)
    torch.testing.assert_close(weights(trained.model), expected)
    assert (trained.cost.gradients, trained.cost.examples) == (1, 32)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator(split) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = train_model(HOW, build, split, "mixed", 1).model
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(weights(first), weights(train_model(HOW, build, split, "mixed", 1).model))
    assert not first.training


def test_a_kept_model_is_read_with_its_cost(split, tmp_path) -> None:
    first = train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    (place,) = tmp_path.iterdir()
    mtime = (place / checkpoint.WEIGHTS).stat().st_mtime_ns
    second = train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    assert torch.equal(weights(first.model), weights(second.model)) and first.cost == second.cost
    assert (place / checkpoint.WEIGHTS).stat().st_mtime_ns == mtime
    sidecar = json.loads((place / checkpoint.SIDECAR).read_text())
    assert sidecar["split"] == split.digest("mixed") and sidecar["recipe"] == repr(HOW)


def test_another_seed_part_training_or_model_is_another_entry(split, tmp_path) -> None:
    def wider() -> nn.Module:
        return nn.Linear(6, 3)

    train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    train_model(HOW, build, split, "retain", 1, cache=tmp_path)
    train_model(HOW, build, split, "mixed", 2, cache=tmp_path)
    train_model(Descent(lr=0.2, steps=5), build, split, "mixed", 1, cache=tmp_path)
    train_model(HOW, wider, split, "mixed", 1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_kept_model_of_other_data_is_refused(split, tmp_path) -> None:
    train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    (place,) = tmp_path.iterdir()
    sidecar = json.loads((place / checkpoint.SIDECAR).read_text())
    (place / checkpoint.SIDECAR).write_text(json.dumps({**sidecar, "split": "other"}))
    with pytest.raises(ValueError, match="must have been trained on split"):
        train_model(HOW, build, split, "mixed", 1, cache=tmp_path)


def test_half_a_kept_model_is_trained_again(split, tmp_path) -> None:
    first = train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    (place,) = tmp_path.iterdir()
    (place / checkpoint.WEIGHTS).unlink()
    second = train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    assert torch.equal(weights(first.model), weights(second.model))


def test_equal_values_have_one_digest() -> None:
    assert digest({"b": 1, "a": (2, None)}) == digest({"a": [2, None], "b": 1}) != digest({"a": [2], "b": 1})


def test_under_a_raised_number_a_model_is_trained_again(split, tmp_path, monkeypatch) -> None:
    train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    monkeypatch.setattr(train, "TRAINING_FORMAT", train.TRAINING_FORMAT + 1)
    train_model(HOW, build, split, "mixed", 1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_denoiser_is_trained_and_kept_under_its_own_task(tmp_path: Path):
    how = Descent(lr=0.01, steps=60, batch=16, optimizer="adam", ema=0.9)
    data, task = every_family.split("denoiser"), every_family.task("denoiser")

    def trained(task: Diffusion):
        return train_model(how, every_family.Denoiser, data, "mixed", 0, task=task, cache=tmp_path)

    first = trained(task)
    fresh = train_model(replace(how, steps=1, lr=1e-9), every_family.Denoiser, data, "mixed", 0, task=task)
    losses = [loss_of(model.model, data, task) for model in (fresh, first)]
    assert losses[1] < 0.8 * losses[0]
    assert same(trained(task).model, first.model) and len(list(tmp_path.iterdir())) == 1
    other = trained(replace(task, schedule=Schedule(prediction="sample")))
    assert not same(other.model, first.model) and len(list(tmp_path.iterdir())) == 2


def loss_of(model: nn.Module, data: Split, task: Diffusion) -> float:
    problem = Problem(task, model, data, torch.Generator())
    return every_family.loss_on(problem, model, "retain")


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[n]) for n, v in a.state_dict().items())

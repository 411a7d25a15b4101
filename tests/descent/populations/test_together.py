"""Models trained together: each equals its twin trained alone, and what can't be batched says why."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import every_family
from for_each import for_each
from unweave.bench.workers import run_calls, workers
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.descent.populations import limits, population
from unweave.descent.populations.limits import descent_reason
from unweave.descent.populations.population import Member, train_population
from unweave.descent.train import train_model
from unweave.errors import Failed
from unweave.split import Split
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.schedule import Schedule
from unweave.tasks.models import conv

HOW = Descent(lr=0.1, epochs=6, batch=16, weight_decay=5e-3, schedule="cosine", warmup=0.15)
CHANGES = {
    "recipe": {},
    "no momentum": {"momentum": 0.0},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "clipped": {"max_norm": 0.05},
    "averaged": {"ema": 0.9},
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def source(n: int = 60, dtype: torch.dtype = torch.float32) -> Resident:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)
    return Resident(inputs.to(dtype), labels)


def members(n: int = 5, dtype: torch.dtype = torch.float32) -> list[Member]:
    """Members of one source; each forgets other examples, ten of them."""
    train, held_out = source(60, dtype), source(20, dtype)
    splits = [Split(train, list(range(3 * i, 3 * i + 10)), held_out) for i in range(n)]
    return [Member(split, "retain", 7 + i) for i, split in enumerate(splits)]


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def alone(member: Member, how: Descent, build) -> torch.Tensor:
    return weights(train_model(how, build, member.split, member.part, member.seed).model)


@for_each("change", CHANGES)
def test_trained_together_equals_trained_alone_in_float64(change: str) -> None:
    how, five = replace(HOW, **CHANGES[change]), members(dtype=torch.float64)
    result = train_population(how, lambda: mlp().double(), five)
    assert result.alone == ()
    for member, trained in zip(five, result.models, strict=True):
        expected = alone(member, how, lambda: mlp().double())
        torch.testing.assert_close(weights(trained.model), expected, rtol=0, atol=1e-12)
        assert not trained.model.training


def test_in_float32_the_difference_is_rounding() -> None:
    five = members()
    for member, trained in zip(five, train_population(HOW, mlp, five).models, strict=True):
        torch.testing.assert_close(weights(trained.model), alone(member, HOW, mlp), rtol=1e-5, atol=1e-5)


def test_convolutions_train_together_where_that_is_faster_with_frozen_weights(monkeypatch) -> None:
    def build() -> nn.Module:
        model = conv(3, size=8, width=4, hidden=5).double()
        model[0].weight.requires_grad_(False)
        return model

    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    data = Resident(images, torch.arange(40) % 3)
    pair = [Member(Split(data, [i, i + 1], data), "mixed", i) for i in range(2)]
    assert (
        "0 is a Conv2d, and on a CPU convolutions take longer" in train_population(HOW, build, pair).alone[0]
    )
    monkeypatch.setattr(limits, "convolution_reason", lambda model: "")  # as on a GPU
    result = train_population(HOW, build, pair)
    assert not result.alone
    for member, trained in zip(pair, result.models, strict=True):
        torch.testing.assert_close(weights(trained.model), alone(member, HOW, build), rtol=0, atol=1e-12)


def test_members_of_other_size_or_part_form_groups_of_their_own() -> None:
    three = members(3, torch.float64)
    smaller = Split(three[0].split.train, list(range(20)), three[0].split.held_out)
    cases = [*three, Member(smaller, "retain", 1), Member(smaller, "mixed", 2), replace(three[0], seed=9)]
    result = train_population(HOW, lambda: mlp().double(), cases, together=2)
    for member, trained in zip(cases, result.models, strict=True):
        expected = alone(member, HOW, lambda: mlp().double())
        torch.testing.assert_close(weights(trained.model), expected, rtol=0, atol=1e-12)


def test_each_model_is_charged_its_own_gradients_and_its_share_of_the_seconds() -> None:
    five = members()
    one = train_model(HOW, mlp, five[0].split, "retain", 7)
    for trained in train_population(HOW, mlp, five).models:
        assert (trained.cost.gradients, trained.cost.examples) == (one.cost.gradients, one.cost.examples)
        assert trained.cost.seconds > 0


class Shared(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).tanh())[:, :3]


def test_tied_weights_stay_tied() -> None:
    pair = members(2, torch.float64)
    for member, trained in zip(
        pair, train_population(HOW, lambda: Shared().double(), pair).models, strict=True
    ):
        expected = alone(member, HOW, lambda: Shared().double())
        torch.testing.assert_close(weights(trained.model), expected, rtol=0, atol=1e-12)
        assert trained.model.first.weight is trained.model.second.weight


class Branching(nn.Module):
    """Decides by a value of the data, which a batched forward pass can't."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x if float(x.sum()) > 0 else 2 * x)


@for_each(
    ("build", "how", "reason"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), HOW, "1 is a BatchNorm that normalises"),
        (
            lambda: nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.1)),
            replace(HOW, dropout="same"),
            "dropout mask",
        ),
        (mlp, replace(HOW, precision="bf16"), "precision='bf16'"),
        (mlp, replace(HOW, stop="forgotten"), "stop='forgotten'"),
        (mlp, replace(HOW, micro_batch=4), "micro_batch=4"),
        (Branching, HOW, "torch.vmap can't run the model"),
    ],
)
def test_what_cannot_be_batched_is_trained_alone_and_says_why(build, how: Descent, reason: str) -> None:
    pair = members(2)
    result = train_population(how, build, pair)
    assert len(result.alone) == 1 and reason in result.alone[0]
    for member, trained in zip(pair, result.models, strict=True):
        assert torch.equal(weights(trained.model), alone(member, how, build))


def test_weights_that_share_optimizer_states_are_not_stacked() -> None:
    # torchao may be missing here; its blocks of 256 weights would hold those of several models
    assert "adamw8bit" in descent_reason(replace(HOW, optimizer="adamw8bit"), 50)
    assert "adafactor" in descent_reason(replace(HOW, optimizer="adafactor"), 50)
    assert descent_reason(replace(HOW, optimizer="adamw"), 50) == ""


def test_the_reason_is_also_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    train_population(replace(HOW, micro_batch=4, epochs=1), mlp, members(4), together=2)
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "models are trained one by one: micro_batch=4 limits the memory" in caplog.text


def store(how: Descent, member: Member, cache: Path) -> None:
    train_model(how, mlp, member.split, member.part, member.seed, cache=cache)


@pytest.mark.usefixtures("forked_workers")
def test_what_cannot_be_batched_is_trained_by_worker_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, how = members(2), replace(HOW, micro_batch=4, epochs=1)
    expected = [alone(member, how, mlp) for member in pair]

    def refuse(*arguments: object) -> None:
        raise AssertionError("this process trains nothing")

    monkeypatch.setattr("unweave.descent.train.descend", refuse)
    calls = [(how, member, tmp_path) for member in pair]
    with workers(2) as crew:
        result = train_population(
            how, mlp, pair, cache=tmp_path, runner=lambda positions: run_calls(crew, store, calls)
        )
    assert all(
        torch.equal(weights(each.model), one) for each, one in zip(result.models, expected, strict=True)
    )


def test_worker_processes_without_a_cache_are_refused() -> None:
    with pytest.raises(ValueError, match="hands models over in the cache, found none"):
        train_population(HOW, mlp, members(2), runner=lambda positions: None)


def test_frozen_batch_norm_trains_together() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).double()

    pair, how = members(2, torch.float64), replace(HOW, norm="frozen")
    result = train_population(how, build, pair)
    assert result.alone == ()
    for member, trained in zip(pair, result.models, strict=True):
        torch.testing.assert_close(weights(trained.model), alone(member, how, build), rtol=0, atol=1e-12)


def test_augmented_data_and_other_tasks_are_trained_alone() -> None:
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Resident(images, torch.arange(40) % 3, flip=True)
    pair = [Member(Split(data, [i], data), "mixed", i) for i in range(2)]
    short = Descent(lr=0.01, steps=2, batch=8)
    result = train_population(short, lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), pair)
    assert "augmented" in result.alone[0]
    task = Diffusion(every_family.CLASSES, Schedule())
    split = every_family.problem("denoiser").split
    denoisers = [Member(split, "mixed", seed) for seed in range(2)]
    result = train_population(short, every_family.Denoiser, denoisers, task=task)
    assert "found the task Diffusion" in result.alone[0]


def test_a_stored_population_is_read_and_an_interruption_loses_one_group(tmp_path: Path, monkeypatch) -> None:
    five = members()
    expected = [weights(each.model) for each in train_population(HOW, mlp, five, together=2).models]
    trained, calls = population.train_group, []

    def interrupted(*arguments) -> list:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*arguments)

    monkeypatch.setattr(population, "train_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_population(HOW, mlp, five, cache=tmp_path, together=2)
    assert len(list(tmp_path.iterdir())) == 2
    result = train_population(HOW, mlp, five, cache=tmp_path, together=2)
    assert len(calls) == 3, "one group of two is trained, and the fifth alone"
    for one, other in zip(result.models, expected, strict=True):
        torch.testing.assert_close(weights(one.model), other, rtol=1e-5, atol=1e-5)
    second = train_population(HOW, mlp, five, cache=tmp_path, together=2)
    assert [each.cost for each in second.models] == [each.cost for each in result.models]


def test_a_model_that_was_trained_alone_is_reused(tmp_path: Path) -> None:
    five = members()
    one = train_model(HOW, mlp, five[2].split, "retain", five[2].seed, cache=tmp_path)
    result = train_population(HOW, mlp, five, cache=tmp_path)
    assert torch.equal(weights(result.models[2].model), weights(one.model))
    assert result.models[2].cost == one.cost


def test_a_training_that_diverges_names_itself() -> None:
    with pytest.raises(Failed, match="no longer finite|trained together became"):
        train_population(replace(HOW, lr=1e30, momentum=0.99), mlp, members())


def test_a_weight_without_a_gradient_is_refused() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(6, 3), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(ValueError, match="2 weights take no part in the loss, first 'idle.weight'"):
        train_population(HOW, Idle, members())
    train_population(replace(HOW, unused=("idle.weight", "idle.bias")), Idle, members())


def test_no_model_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 model at once, found 0"):
        train_population(HOW, mlp, members(), together=0)

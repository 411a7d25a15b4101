"""Budgets of attacks: times, and gradient evaluations."""

import pytest
import torch
from torch import nn

from unweave.audits.attack_runs import budget
from unweave.audits.attack_runs.budget import Duration, gradients_within, parse_budget, seconds_per_gradient
from unweave.audits.attack_runs.plan import Request, plan_attacks
from unweave.split import as_source


def test_a_budget_is_a_time_or_a_number_of_gradients() -> None:
    assert [parse_budget(text).seconds for text in ("90s", "10m", "1.5h", ".5m")] == [90, 600, 5400, 30]
    assert parse_budget("200") == 200
    for text in ("", "m", "0m", "-1", "10 m x", "1e3", "2.5"):
        with pytest.raises(ValueError, match="a budget must be a time such as 90s, 10m or 1h, or gradient"):
            parse_budget(text)


def test_a_time_is_shared_by_all_models(monkeypatch) -> None:
    monkeypatch.setattr(budget, "seconds_per_gradient", lambda *_: 0.5)
    cut = (
        as_source(torch.utils.data.TensorDataset(torch.zeros(1, 2), torch.zeros(1).long())),
        torch.tensor([0]),
    )
    assert gradients_within(Duration(60), 24, nn.Linear(2, 2), cut, "cpu") == 5


def test_a_gradient_takes_time_and_leaves_the_model() -> None:
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(8, 2), torch.arange(8) % 2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    weights = [p.clone() for p in model.parameters()]
    assert seconds_per_gradient(model, (as_source(data), torch.arange(8)), "cpu") > 0
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, weight) for p, weight in zip(model.parameters(), weights, strict=True))


def test_a_time_must_be_measured_before_attacks_are_planned() -> None:
    with pytest.raises(ValueError, match="a budget of time must be measured first"):
        plan_attacks(Request(budget=Duration(60)), retrained=10, has_models=True)

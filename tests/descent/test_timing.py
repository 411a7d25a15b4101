"""Costs: every gradient is counted, and every second is charged to who used it."""

import copy
import time

import pytest
import torch
from torch import nn

from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.descent.timing import count_training, run_and_time
from unweave.descent.train import train_model
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.weights.cost import Cost

HOW = Descent(lr=0.1, steps=5, batch=16)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture
def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 6, generator=generator), torch.randint(3, (60,), generator=generator)
    return Split(Resident(inputs[:40], labels[:40]), list(range(8)), Resident(inputs[40:], labels[40:]))


def test_steps_of_anyones_training_are_counted(split) -> None:
    cost, model = Cost(), build()
    with count_training(cost):
        assert train_model(HOW, build, split, "retain", 0).cost.gradients == HOW.steps
    with count_training(cost):
        for optimizer in (torch.optim.SGD(model.parameters(), 0.1), torch.optim.Adam(model.parameters())):
            model(torch.ones(1, 6)).sum().backward()
            optimizer.step()
    assert cost.gradients == 5 + 2 and cost.seconds > 0
    with pytest.raises(ZeroDivisionError), count_training(cost):
        raise ZeroDivisionError
    optimizer.step()
    assert cost.gradients == 7, "nothing is counted outside"


def test_optimizers_that_share_a_gradient_are_counted_once() -> None:
    cost, model = Cost(), build()
    optimizers = [torch.optim.Adam(part.parameters()) for part in (model[0], model[2])]
    with count_training(cost):
        for _ in range(4):
            model(torch.ones(1, 6)).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    assert cost.gradients == 4


@pytest.mark.parametrize("by_keyword", [False, True])
def test_every_gradient_that_an_optimizer_asks_for_is_counted(by_keyword: bool) -> None:
    cost, model, losses = Cost(), build(), []
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 6)).square().sum()
        loss.backward()
        losses.append(loss)
        return loss.item()

    with count_training(cost):
        for _ in range(2):
            assert (optimizer.step(closure=closure) if by_keyword else optimizer.step(closure)) > 0
    assert cost.gradients == len(losses) > 2


def test_a_shared_result_is_charged_to_who_makes_it_and_to_who_takes_it(split) -> None:
    def proxy(problem: Problem) -> int:
        time.sleep(0.05)
        problem.cost += Cost(7, 70)
        return 1

    def method(problem: Problem) -> None:
        problem.remember("proxy", proxy)
        time.sleep(0.02)

    memory: dict[str, tuple[object, Cost]] = {}
    costs = []
    for _ in range(2):
        model = copy.deepcopy(build())
        costs.append(
            run_and_time(
                Problem(Classifier(3), model, split, torch.Generator().manual_seed(0), memory=memory), method
            )
        )
    assert [each.gradients for each in costs] == [7, 7]
    assert all(0.07 <= each.seconds < 0.07 + 0.05 for each in costs), costs

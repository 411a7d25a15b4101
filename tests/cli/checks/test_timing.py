"""What can't be priced is said in one line, and the others are priced all the same."""

import time
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from for_each import for_each
from unweave.cli.checks import rounds, timing
from unweave.cli.checks.rounds import Estimate, Round
from unweave.cli.project import Project
from unweave.cli.project.project import Retraining
from unweave.descent.descend import Descent
from unweave.methods import METHODS
from unweave.methods.simple import FineTune
from unweave.split import Split
from unweave.weights.cost import Cost

pytestmark = pytest.mark.usefixtures("rounds_of_users")


class Stubborn(nn.Linear):
    """Answers, but can't be trained, as a compiled model may not be where torch has no compiler."""

    message = "no compiler found\nset TORCH_LOGS for more"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError(self.message)
        return super().forward(input)


class Silent(Stubborn):
    message = ""


@pytest.fixture
def split() -> Split:
    data = TensorDataset(torch.randn(40, 4), torch.arange(40) % 2)
    return Split(data, list(range(4)), data)


def project(split: Split, model: nn.Module, retrain: Retraining | None = None) -> Project:
    return Project({}, split.train, split.held_out, 0.5, model=model, retrain=retrain)


def estimate(rounds_of_it: Iterator[Round]) -> Estimate:
    """The estimate from the rounds of one measurement."""
    return rounds.estimate_all({"it": rounds_of_it}, torch.device("cpu"), lambda progress: None)["it"]


@for_each(("kind", "reason"), [(Stubborn, "no compiler found"), (Silent, "RuntimeError")])
def test_a_model_that_torch_refuses_to_train_is_refused_with_the_first_line(split, kind, reason) -> None:
    model = kind(4, 2)
    cost = estimate(timing.method_rounds(METHODS["finetune"], model, split, project(split, model)))
    assert (cost.refused, cost.seconds) == (reason, None)


@for_each(("steps", "runs"), [(1, 2), (2, 1), (3, 2)])
def test_a_length_that_the_short_run_takes_in_full_is_not_run_again(split, monkeypatch, steps, runs) -> None:
    model, calls = nn.Linear(4, 2), []
    measure = timing.time_method
    monkeypatch.setattr(timing, "time_method", lambda *call: calls.append(call) or measure(*call))
    cost = estimate(timing.method_rounds(FineTune(Descent(steps=steps)), model, split, project(split, model)))
    assert len(calls) == runs * rounds.ROUNDS and cost.gradients == steps


@for_each(
    ("seconds_a_step", "seconds", "between"),
    [([0.1, 0.4, 0.2], 4.0, (2.0, 8.0)), ([3.0], 60.0, None)],
)
def test_a_quick_method_is_measured_in_rounds_whose_range_is_told(
    split, monkeypatch, seconds_a_step, seconds, between
) -> None:
    """The short and the longer run of each round; in a slow one, which is the only one, a step is added."""
    model, paces = nn.Linear(4, 2), [each for each in seconds_a_step for _ in range(2)]

    def timed(method, lengths, *_: object) -> Cost:
        steps = round(lengths["how.steps"])
        return Cost(gradients=steps, seconds=steps * paces.pop(0))

    monkeypatch.setattr(timing, "time_method", timed)
    cost = estimate(timing.method_rounds(FineTune(Descent(steps=20)), model, split, project(split, model)))
    assert paces == [] and cost.gradients == 20
    assert cost.seconds == pytest.approx(seconds) and cost.seconds_range == (
        between and pytest.approx(between)
    )


@for_each(
    ("paces", "seconds", "between"),
    [([0.9, 0.1, 0.3, 0.2, 0.6, 0.1, 0.5], 0.5, (0.3, 0.6)), ([2.0, 2.0, 4.0], 4.0, None)],
)
def test_a_training_is_measured_in_rounds_too(split, monkeypatch, paces, seconds, between) -> None:
    """A third and all of the retained examples are trained on, after a first third that does not count."""
    pace = iter(paces)
    monkeypatch.setattr(timing, "time_training", lambda *_: Cost(gradients=5, seconds=next(pace)))
    model = nn.Linear(4, 2)
    cost = estimate(timing.retraining_rounds(project(split, model, lambda *_: model), model, split))
    assert cost.gradients == 5
    assert next(pace, None) is None
    assert cost.seconds == pytest.approx(seconds) and cost.seconds_range == (
        between and pytest.approx(between)
    )


def test_a_training_that_torch_refuses_is_refused_with_the_first_line(split) -> None:
    def retrain(split: Split, seed: int) -> nn.Module:
        raise RuntimeError(Stubborn.message)

    model = nn.Linear(4, 2)
    cost = estimate(timing.retraining_rounds(project(split, model, retrain), model, split))
    assert cost.refused == "no compiler found"


def test_what_another_process_does_is_not_measured(split) -> None:
    """Waiting, as for a busy core, is no CPU time."""
    model = nn.Linear(4, 2)

    def wait(split: Split, seed: int) -> nn.Module:
        time.sleep(0.2)
        return model

    cost = estimate(timing.retraining_rounds(project(split, model, wait), model, split))
    assert cost.seconds is not None and cost.seconds < 0.1 and cost.gradients is None


def test_the_steps_of_a_training_are_counted(split) -> None:
    model = nn.Linear(4, 2)

    def train(part: Split, seed: int) -> nn.Module:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(len(part.retain)):
            optimizer.step()
        return model

    cost = estimate(timing.retraining_rounds(project(split, model, train), model, split))
    assert cost.gradients == pytest.approx(len(split.retain))


def test_a_batch_that_is_not_full_counts_as_one() -> None:
    model = nn.Linear(4, 2)
    data = TensorDataset(torch.randn(1000, 4), torch.arange(1000) % 2)
    whole = Split(data, range(50), data)

    def train(part: Split, seed: int) -> nn.Module:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(0, len(part.retain), 100):
            optimizer.step()
        return model

    cost = estimate(timing.retraining_rounds(project(whole, model, train), model, whole))
    assert cost.gradients == pytest.approx(10, rel=0.05)


def test_rounds_are_interleaved_and_what_is_slow_is_measured_once() -> None:
    order = []

    def measured(name: str, is_quick: bool) -> Iterator[Round]:
        while True:
            order.append(name)
            yield Round(1.0, 1.0, is_quick)

    runs = {"quick": measured("quick", True), "slow": measured("slow", False), "last": measured("last", True)}
    reports = []
    rounds.estimate_all(runs, torch.device("cpu"), reports.append)
    assert order == ["quick", "slow", "last", "quick", "last", "quick", "last"]
    assert [each.done for each in reports] == list(range(1, 10)) and {each.total for each in reports} == {9}


@for_each(
    ("seconds", "gradients", "between", "more"),
    [
        (11.0, 120.0, (5.0, 20.0), True),  # the gradients agree
        (16.0, 60.0, (13.0, 20.0), True),  # the ranges are apart
        (11.0, 60.0, (9.0, 20.0), None),
        (11.0, None, None, None),
        (9.0, 120.0, (5.0, 20.0), False),
    ],
)
def test_more_seconds_alone_do_not_show_a_higher_cost(seconds, gradients, between, more) -> None:
    retraining = Estimate(10.0, 100.0, None, seconds_range=(8.0, 12.0))
    assert Estimate(seconds, gradients, None, seconds_range=between).costs_more_than(retraining) is more

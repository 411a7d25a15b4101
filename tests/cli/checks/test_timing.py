"""What can't be priced is said in one line, and the others are priced all the same."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from unweave.cli.checks import timing
from unweave.cli.project import Project
from unweave.cli.project.project import Retraining
from unweave.descent.descend import Descent
from unweave.methods import METHODS
from unweave.methods.simple import FineTune
from unweave.split import Split
from unweave.weights.cost import Cost


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


@pytest.mark.parametrize(("kind", "reason"), [(Stubborn, "no compiler found"), (Silent, "RuntimeError")])
def test_a_model_that_torch_refuses_to_train_is_refused_with_the_first_line(split, kind, reason) -> None:
    model = kind(4, 2)
    found = timing.estimate(METHODS["finetune"], model, split, project(split, model))
    assert (found.refused, found.seconds) == (reason, None)


@pytest.mark.parametrize(("steps", "runs"), [(1, 2), (2, 1), (3, 2)])
def test_a_length_that_the_short_run_takes_in_full_is_not_run_again(split, monkeypatch, steps, runs) -> None:
    model, timed = nn.Linear(4, 2), []
    measure = timing.time_method
    monkeypatch.setattr(timing, "time_method", lambda *given: timed.append(given) or measure(*given))
    found = timing.estimate(FineTune(Descent(steps=steps)), model, split, project(split, model))
    assert len(timed) == runs * timing.ROUNDS and found.gradients == steps


@pytest.mark.parametrize(
    ("seconds_a_step", "seconds", "between"),
    [([0.1, 0.4, 0.2], 4.0, (2.0, 8.0)), ([3.0], 60.0, None)],
)
def test_a_quick_method_is_measured_in_rounds_whose_range_is_told(
    split, monkeypatch, seconds_a_step, seconds, between
) -> None:
    """The short and the longer run of each round; in a slow one, which is the only one, a step is added."""
    model, rounds = nn.Linear(4, 2), [each for each in seconds_a_step for _ in range(2)]

    def timed(method, lengths, *_: object) -> Cost:
        steps = round(lengths["how.steps"])
        return Cost(gradients=steps, seconds=steps * rounds.pop(0))

    monkeypatch.setattr(timing, "time_method", timed)
    found = timing.estimate(FineTune(Descent(steps=20)), model, split, project(split, model))
    assert rounds == [] and found.gradients == 20
    assert found.seconds == pytest.approx(seconds) and found.seconds_range == (
        between and pytest.approx(between)
    )


@pytest.mark.parametrize(
    ("taken", "seconds", "between"),
    [([0.9, 0.1, 0.3, 0.2, 0.6, 0.1, 0.5], 0.5, (0.3, 0.6)), ([2.0, 2.0, 4.0], 4.0, None)],
)
def test_a_training_is_measured_in_rounds_too(split, monkeypatch, taken, seconds, between) -> None:
    """A third and all of the retained examples are trained on, after a first third that does not count."""
    given = iter(taken)
    monkeypatch.setattr(timing, "time_training", lambda *_: next(given))
    model = nn.Linear(4, 2)
    found = timing.estimate_train(project(split, model, lambda *_: model), split)
    assert next(given, None) is None
    assert found.seconds == pytest.approx(seconds) and found.seconds_range == (
        between and pytest.approx(between)
    )


def test_a_training_that_torch_refuses_is_refused_with_the_first_line(split) -> None:
    def retrain(split: Split, seed: int) -> nn.Module:
        raise RuntimeError(Stubborn.message)

    model = nn.Linear(4, 2)
    assert timing.estimate_train(project(split, model, retrain), split).refused == "no compiler found"

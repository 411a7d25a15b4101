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
    assert len(timed) == runs and found.gradients == steps


def test_a_training_that_torch_refuses_is_refused_with_the_first_line(split) -> None:
    def retrain(split: Split, seed: int) -> nn.Module:
        raise RuntimeError(Stubborn.message)

    model = nn.Linear(4, 2)
    assert timing.estimate_train(project(split, model, retrain), split).refused == "no compiler found"

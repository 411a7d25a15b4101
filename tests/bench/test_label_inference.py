"""`benchmarks/label_inference.py`: what queries and the last bias tell of a deletion."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from unweave.audits.attacks.update_alignment import loss_gradient
from unweave.data.datasets import load
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.split import Split
from unweave.tasks.models import build


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import label_inference

    return label_inference


def test_the_bias_of_softmax_regression_tells_the_label(script: ModuleType) -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 4)
    for label in range(4):
        gradient = loss_gradient(model, (torch.randn(1, 5),), torch.tensor([label]))
        assert script.label_from_bias(0.1 * gradient["bias"]) == label


def test_queries_alone_find_inputs_of_a_class(script: ModuleType) -> None:
    train, test = load("digits")
    how = Descent(lr=0.1, steps=120)
    split = Split(train, [0], test)
    model = train_model(how, lambda: build("mlp", 10, {"hidden": 64}), split, "mixed", 0).model.eval()

    @torch.no_grad()
    def answer(inputs: torch.Tensor) -> torch.Tensor:
        return model(inputs).softmax(1)

    for label in (0, 7):
        found = script.probe_class(answer, label, (64,), least=-1, most=2, probes=4)
        assert found.shape == (4, 64) and -1 <= float(found.min()) <= float(found.max()) <= 2
        assert bool((answer(found)[:, label] >= script.SURE).all())


def test_probes_tell_the_class_that_became_least_sure(script: ModuleType) -> None:
    before = torch.full((3, 10), 0.9995)
    after = before - torch.tensor([[0.01], [0.2], [0.0]])
    assert script.label_from_probes(before, after) == 1

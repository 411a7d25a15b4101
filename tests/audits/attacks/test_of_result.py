"""`unweave.audit(result, Retrain(...), attacks=...)`: models are examined when they are trained, and once."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import unweave
from unweave.audits.classifier.prepare_attacks import refuse_generator
from unweave.audits.diffusion.exam import DiffusionExam
from unweave.audits.references import Retrain
from unweave.descent.descend import Descent
from unweave.methods.simple import FineTune

ASKED = "representation,update-alignment,rmia"


class Trainer:
    """Trains a small network, and notes with which seeds it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, dataset, seed: int) -> nn.Module:
        self.asked.append(seed)
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
        inputs, labels = (torch.stack([torch.as_tensor(item[i]) for item in dataset]) for i in (0, 1))
        update = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(15):
            update.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            update.step()
        return model


@pytest.fixture
def result():
    inputs = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    labels = inputs[:, :3].argmax(1)
    whole = TensorDataset(inputs[:60], labels[:60])
    split = unweave.Split(whole, list(range(0, 60, 5)), TensorDataset(inputs[60:], labels[60:]))
    return unweave.unlearn(Trainer()(whole, 0), split, FineTune(how=Descent(lr=0.1, steps=3)))


def audit(result, train, folder, attacks=ASKED):
    reference = Retrain(train, range(1, 3), [7, 8], folder=folder, code="15 steps")
    found = unweave.audit(result, reference, attacks=attacks)
    return found.record["stages"]["audit"]["attacks"]


def test_models_are_examined_once_and_again_for_more_attacks_or_another_original(result, tmp_path) -> None:
    train = Trainer()
    found = audit(result, train, tmp_path)
    rows = {(row["attack"], row["figure"]): row for row in found["results"]}
    assert {attack for attack, _ in rows} == {*ASKED.split(",")} and found["tier"] == 1
    alignment = rows["update-alignment", "auc"]
    assert alignment["original"] is None and alignment["retrained"] is not None
    assert rows["representation", "few shots"]["original"] is not None
    assert audit(result, train, tmp_path)["results"][0]["value"] == found["results"][0]["value"]
    assert train.asked == [1, 2, 7, 8]
    audit(result, train, tmp_path, attacks="rmia")
    assert train.asked == [1, 2, 7, 8]
    audit(result, train, tmp_path, attacks=f"{ASKED},zrf")
    assert train.asked == [1, 2, 7, 8] * 2
    other = replace(result, original=Trainer()(result.split.train.dataset, 5))
    audit(other, train, tmp_path)
    assert train.asked == [1, 2, 7, 8] * 3
    stored = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert stored["exhibits"].keys() == {"representation", "update-alignment"}


def test_a_model_without_an_update_has_no_alignment_and_it_is_said(result, tmp_path) -> None:
    still = replace(result, model=result.original)
    found = audit(still, Trainer(), tmp_path)
    assert "a model without an update" in found["not_run"]["update-alignment"]


def test_a_generator_is_refused_with_what_to_set() -> None:
    exam = DiffusionExam.__new__(DiffusionExam)  # its kind is all that is asked
    with pytest.raises(ValueError, match="these attacks are for classifiers.* set attacks in its table"):
        refuse_generator(exam)

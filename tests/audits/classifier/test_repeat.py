import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from audits.answers import records
from for_each import for_each
from unweave.audits.classifier.exam import ClassifierExam
from unweave.audits.classifier.repeat import split_sizes
from unweave.errors import Failed
from unweave.split import Split

PARTS = (("forget", "retain"), ("calibration", "test"))


class Fickle(nn.Module):
    """Answers as its first net, and as its second where `when` says so; counts its batches."""

    def __init__(self, when) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nets, self.when, self.asked = nn.ModuleList(nn.Linear(6, 4) for _ in range(2)), when, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return self.nets[int(self.when(self, inputs))](inputs)


def exam() -> ClassifierExam:
    data = records()
    train, held_out = (torch.cat([data.parts[part] for part in parts]) for parts in PARTS)
    sets = [TensorDataset(data.inputs[ids], data.labels[ids]) for ids in (train, held_out)]
    return ClassifierExam(Split(sets[0], range(100), sets[1]))


@for_each(
    ("kind", "when"),
    [
        ("the size of the batch", lambda model, inputs: len(inputs) == 1),
        ("the number of questions before", lambda model, inputs: model.asked > 4),
        ("the other inputs of the batch", lambda model, inputs: inputs.sum() > 0),
        ("chance", lambda model, inputs: torch.rand(()) < 0.5),
    ],
)
def test_a_model_whose_answers_depend_on_more_than_the_input_is_refused(kind, when) -> None:
    with pytest.raises(Failed, match="the same example got another answer in another batch"):
        exam().answers(Fickle(when))


class Halved(nn.Module):
    """Computes in sixteen bits, whose rounding depends on the shape of a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 4)).bfloat16()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 20 * self.net(inputs.bfloat16())


class Squeezed(nn.Sequential):
    """Drops every dimension of size one, that of a batch of one example as well."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).squeeze()


def test_rounding_is_no_other_answer() -> None:
    assert exam().answers(Halved()).finite


def test_a_model_that_needs_several_examples_at_once_is_named() -> None:
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    squeezing_model = Squeezed(nn.Linear(6, 4))
    for model in (nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 4)), squeezing_model):
        with pytest.raises(Failed, match="must answer one example alone, as a user asks"):
            exam().answers(model)


@for_each("n", [2, 36, 128])
def test_every_example_is_asked_again_once(n) -> None:
    assert sum(split_sizes(n)) == n and 2 * split_sizes(n).count(1) > len(split_sizes(n))

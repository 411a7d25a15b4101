from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from audits.answers import networks, one_digit, records
from unweave.audits.classifier.collect import collect
from unweave.data import Raw


class Wrapped(nn.Module):
    """Takes keywords and answers with an object that has `.logits`, as the models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4))

    def forward(self, pixels: torch.Tensor, scale: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.body(pixels) * scale)


class Keywords:
    """A source whose items are dicts and whose examples have names."""

    def __init__(self, data) -> None:
        self.data, self.labels, self.names = data, data.labels, tuple(f"x{i}" for i in range(len(data)))

    def __len__(self) -> int:
        return len(self.data)

    def stream(self, order, *, generator=None):
        assert generator is None
        for ids in order:
            yield Raw(
                ids, {"pixels": self.data.inputs[ids], "scale": torch.ones(len(ids), 1)}, self.labels[ids]
            )

    def digest(self) -> str:
        return "keywords"

    def to(self, device):
        return self


def test_logits_labels_and_positions_are_those_of_the_parts():
    data = records()
    models = networks(2, data, seed=0)
    expected = models.evidence(data)[1]
    evidence = collect(models.modules()[1], data.cuts, device="cpu", n_classes=4, batch_size=33)
    for part, order in data.parts.items():
        assert np.allclose(evidence.logits[part], expected.logits[part], atol=1e-5)
        assert evidence.logits[part].dtype == np.float32
        assert (evidence.labels[part] == data.labels[order].numpy()).all()
        assert (evidence.ids[part] == order.numpy()).all()


def test_a_model_of_keywords_is_left_in_the_modes_and_with_the_statistics_it_had():
    data = records()
    source = Keywords(data)
    model = Wrapped().train()
    model.body[0].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    cuts = {part: (source, order) for part, order in data.parts.items()}
    first, second = (collect(model, cuts, device="cpu", batch_size=size) for size in (1024, 50))
    assert [model.training, model.body[0].training, model.body[1].training] == [True, False, True]
    assert all((value == state[name]).all() for name, value in model.state_dict().items())
    assert all(np.allclose(first.logits[part], second.logits[part], atol=1e-6) for part in cuts)
    assert first.ids["forget"].tolist()[:2] == ["x0", "x1"]
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_half_precision_is_not_used_inside_an_autocast():
    data = records()
    model = networks(1, data, seed=0).modules()[0]
    evidence = collect(model, data.cuts, device="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = collect(model, data.cuts, device="cpu")
    assert all((evidence.logits[part] == autocast.logits[part]).all() for part in evidence.logits)


def test_another_number_of_logits_is_refused():
    data = records()
    model = networks(1, data, seed=0).modules()[0]
    with pytest.raises(
        ValueError, match=r"expected logits of shape \[100, 5\] from the model, found \[100, 4\]"
    ):
        collect(model, data.cuts, device="cpu", n_classes=5)
    with pytest.raises(
        ValueError, match=r"expected logits of shape \[100, class\] from the model, found \[100\]"
    ):
        collect(nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), data.cuts, device="cpu")


def test_a_nan_model_is_collected_and_a_forgotten_class_kept_in_mind():
    data = one_digit()
    model = networks(1, data, seed=0).modules()[0]
    with torch.no_grad():
        model[0].weight[0] = torch.nan
    evidence = collect(model, data.cuts, device="cpu", forgotten_classes=(3,))
    assert not evidence.finite
    assert evidence.forgotten_classes == (3,)
    assert not replace(evidence, forgotten_classes=()).finite


def test_ids_are_text_in_every_part_where_one_has_names():
    """A file has one column of ids: what is read back must match what was never written."""
    data = records()
    model = networks(1, data, seed=0).modules()[0]
    named_data = replace(data, names=tuple(f"x{i}" for i in range(len(data))))
    cuts = {part: (data, torch.arange(4)) for part in ("retain", "calibration", "test")}
    evidence = collect(model, {"forget": (named_data, torch.arange(4)), **cuts}, device="cpu")
    assert evidence.ids["forget"].tolist() == ["x0", "x1", "x2", "x3"]
    assert evidence.ids["test"].tolist() == ["0", "1", "2", "3"]

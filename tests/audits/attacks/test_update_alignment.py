"""The gradient of a record's loss, and how far an update points along it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audits.attacks.ascended import ascend, digits
from unweave.audits.attacks.update_alignment import align, cosine, loss_gradient, weight_changes
from unweave.tasks.models import build


def test_an_ascent_step_is_the_summed_gradient_exactly() -> None:
    torch.manual_seed(0)
    model = build("mlp", 3, {"inputs": 5, "hidden": 7}).double()
    inputs, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    ascended_model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(ascended_model.parameters(), 0.1)
    (-functional.cross_entropy(ascended_model(inputs), labels, reduction="sum")).backward()
    optimizer.step()
    gradient = loss_gradient(model, (inputs,), labels)
    for name, change in weight_changes(model, ascended_model).items():
        torch.testing.assert_close(change, 0.1 * gradient[name], rtol=0, atol=1e-12)
    assert float(cosine(gradient, weight_changes(model, ascended_model))) == pytest.approx(1, abs=1e-9)


def test_exact_deletion_of_one_full_batch_step_is_the_records_gradient() -> None:
    torch.manual_seed(0)
    model = build("mlp", 3, {"inputs": 5, "hidden": 7}).double()
    inputs, labels, n = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2]), 6

    def trained(rows: slice) -> nn.Module:
        model_after_step = copy.deepcopy(model)
        functional.cross_entropy(model_after_step(inputs[rows]), labels[rows]).backward()
        torch.optim.SGD(model_after_step.parameters(), 0.1).step()
        return model_after_step

    full_update, reduced_update = (weight_changes(model, trained(rows)) for rows in (slice(n), slice(1, n)))
    delta = {name: -(n * full_update[name] - (n - 1) * reduced_update[name]) for name in full_update}
    gradient = loss_gradient(model, (inputs[:1],), labels[:1])
    for name, g in gradient.items():
        torch.testing.assert_close(delta[name], 0.1 * g, rtol=0, atol=1e-12)


def test_the_update_is_aligned_with_the_deleted_record_most() -> None:
    split, model = digits()
    cosines = align(model, weight_changes(model, ascend(17)), (split.train, torch.arange(60)), "cpu")
    assert int(np.argmax(cosines)) == 17 and cosines[17] == pytest.approx(1, abs=1e-3)

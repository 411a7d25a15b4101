"""A glance asks some examples of a large part, and all of a small one."""

from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import TensorDataset

from unweave.audits.classifier.exam import ClassifierExam
from unweave.split import Split


def test_a_large_part_is_sampled_and_said_to_be():
    data = TensorDataset(torch.randn(200, 3), torch.arange(200) % 4)
    split, model = Split(data, range(0, 200, 8), data), nn.Linear(3, 4)
    whole = ClassifierExam(split)
    some, all_of_it = replace(whole, max_examples=30), replace(whole, max_examples=200)
    found = some.answers(model)
    assert {part: len(ids) for part, ids in found.ids.items()} == {
        "forget": 25,
        "retain": 30,
        "calibration": 30,
        "test": 30,
    }
    everything = dict(
        zip(whole.answers(model).ids["retain"], whole.answers(model).logits["retain"], strict=True)
    )
    for name, row in zip(found.ids["retain"], found.logits["retain"], strict=True):
        assert torch.allclose(torch.from_numpy(row), torch.from_numpy(everything[name]))
    assert (found.ids["retain"] == some.answers(model).ids["retain"]).all()
    assert some.glance_note == "A glance at 30 examples of a part at most; `unweave audit` asks all."
    assert whole.glance_note == all_of_it.glance_note == ""

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
    full_exam = ClassifierExam(split)
    small_exam, large_exam = replace(full_exam, max_examples=30), replace(full_exam, max_examples=200)
    evidence = small_exam.answers(model)
    assert {part: len(ids) for part, ids in evidence.ids.items()} == {
        "forget": 25,
        "retain": 30,
        "calibration": 30,
        "test": 30,
    }
    logits_by_id = dict(
        zip(full_exam.answers(model).ids["retain"], full_exam.answers(model).logits["retain"], strict=True)
    )
    for name, row in zip(evidence.ids["retain"], evidence.logits["retain"], strict=True):
        assert torch.allclose(torch.from_numpy(row), torch.from_numpy(logits_by_id[name]))
    assert (evidence.ids["retain"] == small_exam.answers(model).ids["retain"]).all()
    assert small_exam.glance_note == "A glance at 30 examples of a part at most; `unweave audit` asks all."
    assert full_exam.glance_note == large_exam.glance_note == ""

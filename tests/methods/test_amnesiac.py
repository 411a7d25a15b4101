"""Amnesiac: one wrong label for each forget example, the same whenever it comes, on data as it is."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from every_family import CLASSES, Toy, problem
from plain import Recorder, grad, moved_apart, recorded, weights, whole
from unweave.data.keyed_draws import draw_key
from unweave.descent.descend import Descent
from unweave.methods.amnesiac import Amnesiac, relabel
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier


@dataclass(frozen=True)
class Targets(Recorder):
    """Remembers what outputs were compared with."""

    asked: list[Tensor] = field(default_factory=list, compare=False)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        self.asked.append(target)
        return super().loss(output, target)


def test_wrong_labels_are_those_of_forget_examples_alone():
    of = problem("layernorm")
    wrong_labels, true = relabel(of), of.split.train.labels
    assert bool((wrong_labels != true)[of.split.forget].all()) and bool(
        (wrong_labels == true)[of.split.retain].all()
    )
    assert wrong_labels.min() >= 0 and wrong_labels.max() < CLASSES


def test_a_wrong_label_hangs_on_seed_and_id_and_not_on_what_else_is_forgotten():
    whole_class, tenth = problem("layernorm", whole_class=True), problem("layernorm")
    common = whole_class.split.is_forget & tenth.split.is_forget
    assert common.any()
    one, other = relabel(whole_class), relabel(tenth)
    assert torch.equal(one[common], other[common])
    assert not torch.equal(relabel(problem("layernorm", seed=1)), other)


def test_wrong_labels_are_uniform_among_the_wrong_ones():
    data = Toy((torch.zeros(4000, 1),), torch.full((4000,), 2))
    split = Split(data, range(3000), Toy((torch.zeros(2, 1),), torch.tensor([0, 4])))
    of = Problem(Classifier(5), nn.Linear(1, 5), split, torch.Generator().manual_seed(0))
    counts = relabel(of)[:3000].bincount(minlength=5)
    assert counts[2] == 0 and (counts[[0, 1, 3, 4]] - 750).abs().max() < 4 * (3000 * 0.25 * 0.75) ** 0.5


def splitmix(state: int) -> int:
    """SplitMix64 in Python's whole numbers."""
    bits = (state + 0x9E3779B97F4A7C15) % 2**64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return bits ^ (bits >> 31)


def test_wrong_labels_against_whole_numbers():
    of = problem("layernorm")
    key = draw_key(torch.Generator().manual_seed(0))  # the seed of the problem
    wrong_labels, labels = relabel(of), of.split.train.labels.tolist()
    for i in of.split.forget.tolist():
        share = (splitmix(splitmix((key + i) % 2**64)) >> 11) / 2**53
        assert int(wrong_labels[i]) == (labels[i] + 1 + int(share * (CLASSES - 1))) % CLASSES


@pytest.mark.parametrize("steps", [1, 3])
def test_amnesiac(steps: int):
    of, recorder = recorded("layernorm")
    plain = copy.deepcopy(of.model)
    labels = relabel(recorded("layernorm")[0])
    method = whole(Amnesiac(), steps=steps, lr=0.01, weight_decay=0.0)
    method(of)
    assert [sorted(batch.ids.tolist()) for batch in recorder.drawn] == [list(range(60))] * steps
    mean, square = ([torch.zeros_like(p) for p in weights(plain)] for _ in range(2))
    for t, batch in enumerate(recorder.drawn, 1):
        g = grad(plain, F.cross_entropy(plain(batch.inputs[0]), labels[batch.ids]))
        mean = [0.9 * m + 0.1 * x for m, x in zip(mean, g, strict=True)]
        square = [0.999 * v + 0.001 * x**2 for v, x in zip(square, g, strict=True)]
        with torch.no_grad():
            for p, m, v in zip(weights(plain), mean, square, strict=True):
                p -= 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    assert moved_apart(of.model, plain) < 1e-10


def test_labels_stay_as_they_are_from_epoch_to_epoch():
    task = Targets()
    of = problem("layernorm", scorer=task)
    Amnesiac(how=Descent(lr=1e-4, epochs=3, batch=16, optimizer="adam"))(of)
    labels_by_id: dict[int, list[int]] = {}
    for batch, target in zip(task.drawn, task.asked, strict=True):
        for i, label in zip(batch.ids.tolist(), target.tolist(), strict=True):
            labels_by_id.setdefault(i, []).append(label)
    assert labels_by_id.keys() == set(range(60))
    assert all(len(labels) == 3 and len(set(labels)) == 1 for labels in labels_by_id.values())


def test_nothing_is_augmented():
    of, recorder = recorded("batchnorm")
    whole(Amnesiac(), steps=2)(of)
    for batch in recorder.drawn:
        assert isinstance(batch.inputs, tuple)
        assert torch.equal(batch.inputs[0], of.split.train.inputs[0][batch.ids])


def test_one_class_has_no_wrong_label():
    data = Toy((torch.zeros(4, 2),), torch.zeros(4, dtype=torch.long))
    of = Problem(Classifier(1), nn.Linear(2, 1), Split(data, [0], data), torch.Generator())
    with pytest.raises(ValueError, match="needs a second class"):
        Amnesiac()(of)

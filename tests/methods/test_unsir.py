"""UNSIR: the noise against plain torch, all of it used, and whole classes alone."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from every_family import CLASSES, Toy, loss_on, problem
from for_each import for_each
from plain import Recorder, grad, moved_apart, weights
from unweave.data.with_noise import SourceWithNoise
from unweave.descent.descend import Descent
from unweave.methods.unsir import UNSIR, draw_noise
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier

SHORT = UNSIR(
    images=5,
    noise_steps=3,
    repeats=2,
    impair=Descent(lr=0.01, steps=2, batch=200, optimizer="adam"),
    how=Descent(lr=0.01, steps=2, batch=200, optimizer="adam"),
)


def recorded_problem(family: str = "layernorm", seed: int = 0) -> tuple[Problem, Recorder]:
    """Class 3 is to be forgotten."""
    recorder = Recorder()
    return problem(family, dtype=torch.float64, whole_class=True, scorer=recorder, seed=seed), recorder


class Adam:
    """Written out."""

    def __init__(self, lr: float) -> None:
        self.lr, self.t, self.mean, self.square = lr, 0, [], []

    def step(self, values: list[Tensor], gradient: list[Tensor]) -> None:
        if not self.mean:
            self.mean, self.square = ([torch.zeros_like(g) for g in gradient] for _ in range(2))
        self.t += 1
        self.mean = [0.9 * m + 0.1 * g for m, g in zip(self.mean, gradient, strict=True)]
        self.square = [0.999 * v + 0.001 * g**2 for v, g in zip(self.square, gradient, strict=True)]
        with torch.no_grad():
            for p, m, v in zip(values, self.mean, self.square, strict=True):
                p -= self.lr * (m / (1 - 0.9**self.t)) / ((v / (1 - 0.999**self.t)).sqrt() + 1e-8)


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_the_noise(family: str):
    of, _ = recorded_problem(family)
    plain = copy.deepcopy(of.model).eval()
    (start,), _ = draw_noise(recorded_problem(family)[0], 5)
    noise, adam = start.detach().clone().requires_grad_(), Adam(0.1)
    for _ in range(3):
        away = -F.cross_entropy(plain(noise), torch.full((5,), 3))
        loss = away + 0.1 * sum(x.square().sum() for x in noise) / 5
        adam.step([noise], list(torch.autograd.grad(loss, [noise])))
    (result,) = SHORT.noise_of(of, 3)
    assert float((result - noise.detach()).abs().max()) < 1e-10
    assert moved_apart(of.model, plain) == 0 and of.cost.gradients == 3


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_impair_and_repair(family: str):
    of, recorder = recorded_problem(family)
    plain = copy.deepcopy(of.model).train()
    SHORT(of)
    stay = len(of.split.retain)
    assert [len(batch) for batch in recorder.drawn] == [10 + stay] * 2 + [stay] * 2
    for phase in (recorder.drawn[:2], recorder.drawn[2:]):
        adam = Adam(0.01)  # a new one for each
        for batch in phase:
            loss = F.cross_entropy(plain(batch.inputs[0]), batch.target)
            adam.step(weights(plain), grad(plain, loss))
    assert moved_apart(of.model, plain) < 1e-9  # running statistics too


def test_noise_that_a_model_says_nothing_of_shrinks_by_the_rate_of_adam():
    # of weights at zero the loss has no slope in the inputs, and Adam's first step is the sign of the rest
    data = Toy((torch.randn(6, 3, 2),), torch.tensor([0, 1, 0, 1, 0, 1]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    nn.init.zeros_(model[1].weight)
    of, other_problem = (
        Problem(Classifier(2), model, Split(data, [0, 2, 4], data), torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    (start,), _ = draw_noise(other_problem, 4)
    (result,) = UNSIR(images=4, noise_steps=1).noise_of(of, 0)
    assert result.shape == (4, 3, 2)
    torch.testing.assert_close(result, start.detach() - 0.1 * start.detach().sign(), rtol=0, atol=1e-5)


def test_the_model_is_farther_from_the_class_on_learned_noise_than_on_drawn():
    of, _ = recorded_problem()
    (start,), _ = draw_noise(recorded_problem()[0], 32)
    (learned_noise,) = UNSIR().noise_of(of, 3)
    target = torch.full((32,), 3)
    with torch.no_grad():
        losses = [float(F.cross_entropy(of.model.eval()(x), target)) for x in (start, learned_noise)]
    assert losses[1] > 1.5 * losses[0]


# --- the released code takes as many images as they have channels


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_every_noise_image_comes_equally_often(family: str):
    of, recorder = recorded_problem(family)
    method = UNSIR(noise_steps=1, repeats=3)
    method(of)
    (learned_noise,) = method.noise_of(recorded_problem(family)[0], 3)
    stay = set(of.split.retain.tolist())
    impair = [batch for batch in recorder.drawn if bool((batch.target == 3).any())]
    rows = torch.cat([batch.inputs[0] for batch in impair])
    target, ids = (torch.cat([getattr(batch, name) for batch in impair]) for name in ("target", "ids"))
    assert sorted(ids.tolist()) == list(range(96 + len(stay)))  # one epoch, each once
    noise = rows[target == 3]
    assert len(noise) == 96 and len(noise.unique(dim=0)) == 32
    noises = method.noise_split(recorded_problem(family)[0]).train.noise[0]
    counts = [(noise - image).flatten(1).abs().sum(1).eq(0).sum() for image in noises]
    assert counts == [3] * 32 and noises.shape == learned_noise.shape
    images = of.split.train.inputs[0][of.split.retain]
    assert torch.equal(rows[target != 3].unique(dim=0), images.unique(dim=0))  # as it is, and no forget data


def test_so_many_of_each_class_are_taken_at_most():
    of, _ = recorded_problem()
    split = replace(SHORT, per_class=4).noise_split(of)
    labels = split.train.labels[split.retain]
    assert labels.bincount().tolist() == [4, 4, 4]
    assert split.forgotten_classes == (3,) and len(split.forget) == 10


# --- the request


def assert_refuses(of: Problem, message: str) -> None:
    before = copy.deepcopy(of.model)
    with pytest.raises(ValueError, match=message):
        UNSIR()(of)
    assert moved_apart(of.model, before) == 0 and of.cost.gradients == 0


def test_random_forgetting_is_refused_before_any_compute():
    assert_refuses(problem("layernorm"), "found 13 of 13 forget examples whose class has retain examples")


def test_a_class_and_a_stranger_are_refused():
    of = problem("layernorm", whole_class=True)
    stranger = int(of.split.retain[0])
    split = Split(of.split.train, [*of.split.forget.tolist(), stranger], of.split.held_out)
    assert_refuses(of.with_split(split), "found 1 of .* forget examples")


def test_inputs_that_are_no_floats_are_refused():
    data = Toy((torch.zeros(6, 2, dtype=torch.long),), torch.tensor([0, 1, 0, 1, 0, 1]))
    model = nn.Sequential(nn.Embedding(2, 3), nn.Flatten(), nn.Linear(6, 2))
    split = Split(data, [0, 2, 4], data)
    of = Problem(Classifier(2), model, split, torch.Generator())
    assert_refuses(of, "inputs of floats, found torch.int64")


def test_several_classes_have_noise_each():
    of = problem("layernorm")
    labels = of.split.train.labels
    split = Split(of.split.train, (labels >= 2).nonzero()[:, 0], of.split.held_out)
    of = of.with_split(split)
    noise_data = SHORT.noise_split(of)
    assert noise_data.train.noise_labels.tolist() == [2] * 5 + [3] * 5 and of.cost.gradients == 6


@for_each(
    ("change", "message"),
    [
        ({"images": 0}, r"images must be in \[1, inf\)"),
        ({"repeats": 0}, r"repeats must be in \[1, inf\)"),
        ({"penalty": -1.0}, r"penalty must be in \[0, inf\)"),
        ({"impair": Descent(steps=1, stop="forgotten")}, "impair.stop to 'never'"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        UNSIR(**change)


def test_a_class_can_be_forgotten():
    of = problem("batchnorm", whole_class=True)
    before = loss_on(of, of.model, "forget")
    adam = Descent(lr=0.01, epochs=4, batch=16, optimizer="adam")
    UNSIR(repeats=2, impair=adam, how=replace(adam, epochs=1))(of)
    assert loss_on(of, of.model, "forget") > 2 * before


# --- noise and a source, in one


class Named(Toy):
    """Hands out its inputs by name."""

    def stream(self, order, *, generator=None):
        for raw in super().stream(order, generator=generator):
            yield replace(raw, inputs=dict(zip(("x", "scale"), raw.inputs, strict=True)))


@pytest.mark.parametrize("kind", [Toy, Named])
def test_noise_and_examples_come_in_the_order_asked_for(kind: type[Toy]):
    source = kind((torch.arange(4.0)[:, None], -torch.arange(4.0)), torch.arange(4) % CLASSES)
    noise = [torch.tensor([[10.0], [20.0]]), torch.tensor([-10.0, -20.0])]
    data = SourceWithNoise(noise, torch.tensor([3, 2]), 2, source, torch.tensor([1, 3]))
    assert len(data) == 6 and data.labels.tolist() == [3, 2, 3, 2, 1, 3] and data.names is None
    order = [torch.tensor([5, 0, 4, 3]), torch.tensor([2, 1]), torch.tensor([4])]
    first, *rest = data.stream(order)
    fields = list(first.inputs.values()) if isinstance(first.inputs, dict) else list(first.inputs)
    assert fields[0][:, 0].tolist() == [3.0, 10.0, 1.0, 20.0] and fields[1].tolist() == [
        -3.0,
        -10.0,
        -1.0,
        -20.0,
    ]
    assert first.label.tolist() == [3, 3, 1, 2] and first.ids.tolist() == [5, 0, 4, 3]
    assert [raw.label.tolist() for raw in rest] == [[3, 2], [1]]
    assert data.digest() != replace(data, repeats=1).digest() != replace(data, noise=noise[::-1]).digest()

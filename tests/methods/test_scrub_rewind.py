"""SCRUB with rewinding: which epoch is gone back to, and that its model is the result."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from every_family import Toy, problem
from for_each import for_each
from plain import Sgd, grad, moved_apart, recorded, whole
from unweave.methods import scrub
from unweave.methods.scrub import SCRUB, mark_forget_classes
from unweave.problem import Problem
from unweave.split import Split

METHOD = SCRUB(retain_weight=0.8, distill_weight=0.3, temperature=2.0, rewind=True)


def epochs(of: Problem, method: SCRUB, batches: list) -> list[nn.Module]:
    """The model before the first epoch and after every one, in plain torch; a retain batch ends an epoch."""
    plain = copy.deepcopy(of.model).train()
    sgd, teacher, models = Sgd(plain, method.how), copy.deepcopy(plain).eval(), [copy.deepcopy(plain)]
    for batch in batches:
        (x,) = batch.inputs
        forget, output = bool(of.split.is_forget[batch.ids].all()), plain(x)
        target, heard = (teacher(x).detach() / 2).softmax(1), (output / 2).log_softmax(1)
        divergence = 4 * F.kl_div(heard, target, reduction="batchmean")
        loss = -divergence if forget else 0.8 * F.cross_entropy(output, batch.target) + 0.3 * divergence
        sgd.step(grad(plain, loss))
        if not forget:
            models.append(copy.deepcopy(plain))
    return models


@torch.no_grad()
def mistaken(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((copy.deepcopy(model).eval()(x).argmax(1) != y).double().mean())


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
@for_each("lr", [0.02, 0.1])
def test_it_goes_back_to_the_nearest_epoch(family: str, lr: float):
    of, recorder = recorded(family)
    start, split = copy.deepcopy(of), of.split
    method = whole(METHOD, steps=None, epochs=6, lr=lr)
    method(of)
    models = epochs(start, method, recorder.drawn)
    x, y = split.train.inputs[0][split.forget], split.train.labels[split.forget]
    rows = split.calibration[torch.isin(split.held_out.labels[split.calibration], y)]
    aim = mistaken(models[-1], split.held_out.inputs[0][rows], split.held_out.labels[rows])
    errors = [mistaken(model, x, y) for model in models]
    nearest = min(range(7), key=lambda i: abs(errors[i] - aim))
    assert [row[1] for row in of.traces["forget error"]] == pytest.approx(errors)
    assert moved_apart(of.model, models[nearest]) < 1e-12  # running statistics too
    assert errors[0] < errors[-1] and nearest < 6


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_every_epoch_can_be_gone_back_to_the_original_too(epoch: int, monkeypatch: pytest.MonkeyPatch):
    # released code that does this loads nothing where the original is chosen, and returns the last epoch
    of, recorder = recorded("batchnorm")
    start, errors = copy.deepcopy(of), [0.9] * 4
    errors[epoch] = 0.4
    heard = iter(errors)
    monkeypatch.setattr(
        scrub, "error_rate", lambda of, part, among=None: next(heard) if part == "forget" else 0.3
    )
    method = whole(METHOD, steps=None, epochs=3)
    method(of)
    models = epochs(start, method, recorder.drawn)
    assert len(models) == 4 and moved_apart(of.model, models[epoch]) < 1e-12
    if epoch == 0:
        assert moved_apart(of.model, start.model) == 0
    assert all(moved_apart(of.model, model) > 1e-3 for i, model in enumerate(models) if i != epoch)


def test_without_rewinding_the_last_epoch_is_the_result():
    (of, recorder), method = recorded("batchnorm"), whole(SCRUB(0.8, 0.3, 2.0), steps=None, epochs=3)
    start = copy.deepcopy(of)
    method(of)
    assert moved_apart(of.model, epochs(start, method, recorder.drawn)[-1]) < 1e-12
    assert "forget error" not in of.traces


def test_strangers_are_of_the_forgotten_classes():
    of = problem("layernorm", whole_class=True)
    labels = of.split.held_out.labels[of.split.calibration]
    assert mark_forget_classes(of).tolist() == (labels == 3).tolist() and 0 < int(
        mark_forget_classes(of).sum()
    ) < len(labels)


def test_no_stranger_is_refused_before_anything_is_trained():
    of = problem("layernorm", whole_class=True)
    test_data = of.split.held_out
    assert isinstance(test_data, Toy)
    ids = (test_data.labels != 3).nonzero()[:, 0].tolist()
    of.split = Split(of.split.train, of.split.forget, test_data, calibration=ids)
    with pytest.raises(ValueError, match="needs calibration examples of the classes .* found none"):
        whole(METHOD)(of)
    assert of.cost.gradients == 0


def test_an_average_of_the_weights_cannot_be_rewound():
    with pytest.raises(ValueError, match="use one of them"):
        whole(METHOD, ema=0.9)

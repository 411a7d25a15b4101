import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import every_family
from unweave.audits.diffusion.drawing import Drawing, Relearner, denoising_loss
from unweave.audits.diffusion.sweeps import Generate
from unweave.descent.descend import Descent
from unweave.tasks.diffusion.condition_vectors import Table, vectors
from unweave.tasks.diffusion.sample import sample

pytest.importorskip("diffusers")
# of diffusers' own code, under NumPy 2 and this torch
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

from audits.diffusion.denoisers import GONE, IMAGES, SHAPE, TASK  # noqa: E402  # needs diffusers

SHORT = Descent(lr=1e-3, steps=6, batch=8, optimizer="adam")


@pytest.fixture
def fresh() -> Drawing:
    return Drawing(every_family.unet(), TASK, SHAPE)


def weights(drawing: Drawing) -> torch.Tensor:
    return nn.utils.parameters_to_vector(drawing.model.parameters()).detach()


def test_what_is_drawn_is_the_samplers(fresh: Drawing):
    assert isinstance(fresh, Generate)
    seeds = [7, 3, 12]
    images = fresh(GONE, seeds, 2.0)
    expected = sample(
        fresh.model,
        TASK,
        torch.full((3,), GONE),
        shape=SHAPE,
        how=replace(fresh.how, guidance=2.0),
        seeds=seeds,
    )
    assert torch.equal(images, expected) and images.dtype == torch.uint8
    assert torch.equal(fresh(fresh.vector(GONE), seeds, 2.0), images)
    assert torch.equal(fresh(GONE, seeds[::-1], 2.0), images.flip(0))
    assert not torch.equal(fresh(fresh.vector(0), seeds, 2.0), images)


def test_the_looks_are_at_the_same_training_whoever_looks(fresh: Drawing):
    start_weights = weights(fresh)
    relearner = Relearner(fresh, GONE, SHORT, checks=(2, 4))
    checks = relearner(IMAGES[:10], copy.deepcopy)
    assert [step for step, _ in checks] == [0, 2, 4, 6]
    distances = [float((weights(each) - start_weights).norm()) for _, each in checks]
    assert distances[0] == 0 and distances == sorted(distances) and len(set(distances)) == 4
    assert torch.equal(weights(fresh), start_weights)
    (_, start), (_, end) = replace(relearner, checks=())(IMAGES[:10], copy.deepcopy)
    assert torch.equal(weights(start), start_weights) and torch.equal(weights(end), weights(checks[-1][1]))
    other_checks = replace(relearner, seed=1)(IMAGES[:10], copy.deepcopy)
    assert not torch.equal(weights(other_checks[-1][1]), weights(end))


def test_a_check_that_draws_changes_no_later_step(fresh: Drawing):
    relearner = Relearner(fresh, GONE, SHORT, checks=(2, 4))
    checks = relearner(IMAGES[:10], copy.deepcopy)
    drawn = relearner(IMAGES[:10], lambda drawing: (drawing(GONE, [1, 2], 1.0), weights(drawing)))
    for (_, later), (_, (images, found)) in zip(checks, drawn, strict=True):
        assert torch.equal(weights(later), found) and torch.equal(later(GONE, [1, 2], 1.0), images)


def test_the_first_step_is_adams_on_all_weights_also_on_those_that_were_frozen(fresh: Drawing):
    for name, p in fresh.model.named_parameters():
        p.requires_grad_("class_embedding" in name)
    relearner = Relearner(fresh, GONE, replace(SHORT, steps=1), checks=())
    (_, start), (_, end) = relearner(IMAGES, copy.deepcopy)
    start_state, end_state = start.model.state_dict(), end.model.state_dict()
    changes = {name: (end_state[name] - start_state[name]).abs() for name in start_state}
    for name, change in changes.items():
        if not name.endswith("to_k.bias"):  # it adds the same to all scores, so its gradient is rounding
            # Adam's first step is lr g / (|g| + eps)
            assert float(change.max()) == pytest.approx(1e-3, rel=0.02), name
    rows = changes["class_embedding.weight"].amax(1)
    assert rows.nonzero()[:, 0].tolist() == [GONE]  # and the condition was not dropped


def test_images_are_learned_in_the_range_in_which_they_are_drawn(fresh: Drawing):
    problem = Relearner(fresh, GONE).problem(IMAGES)
    (batch,) = problem.split.train.stream([torch.arange(len(IMAGES))])
    torch.testing.assert_close(batch.inputs[0], IMAGES / 127.5 - 1)
    assert batch.label.tolist() == [GONE] * len(IMAGES) and problem.task.drop == 0
    with pytest.raises(ValueError, match=r"images must have shape \[n, 1, 4, 4\], found \[2, 1, 8, 8\]"):
        Relearner(fresh, GONE)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), copy.deepcopy)


def test_the_loss_of_a_vector_is_the_training_loss_of_its_class(fresh: Drawing):
    loss = denoising_loss(fresh, IMAGES[:5], draws=12, seed=3)
    fresh.model.eval()
    (examples,) = (
        Relearner(fresh, GONE).problem(IMAGES[torch.arange(12) % 5]).split.train.stream([torch.arange(12)])
    )
    batch = replace(TASK, drop=0.0).draw(examples, torch.Generator().manual_seed(3))
    expected = TASK.loss(fresh.model(*batch.inputs), batch.target).mean()
    torch.testing.assert_close(loss(fresh.vector(GONE)), expected.detach(), rtol=1e-5, atol=0)


def test_the_loss_has_the_gradient_of_its_differences_and_asks_for_no_other(fresh: Drawing):
    fresh.model.double()
    loss, start = denoising_loss(fresh, IMAGES, draws=4), fresh.vector(GONE).requires_grad_()
    assert torch.autograd.gradcheck(loss, start, eps=1e-6, atol=1e-8)
    loss(start).backward()
    assert bool(start.grad.any()) and all(p.grad is None for p in fresh.model.parameters())


def test_the_loss_stays_as_it_was_made(fresh: Drawing):
    loss, vector = denoising_loss(fresh, IMAGES), fresh.vector(0)
    value = loss(vector)
    with torch.no_grad():
        for p in fresh.model.parameters():
            p.zero_()
    assert torch.equal(loss(vector), value) and value.ndim == 0
    assert not torch.equal(denoising_loss(fresh, IMAGES)(vector), value)


def test_a_denoiser_may_take_its_inputs_by_name():
    denoiser = every_family.Denoiser()
    denoiser.condition = Table.of(denoiser.condition)
    named_task = replace(TASK, names=("x", "time", "condition"))
    by_name, by_place = (Drawing(copy.deepcopy(denoiser), task, SHAPE) for task in (named_task, TASK))
    vector = vectors(denoiser, torch.tensor([2]))[0]
    assert torch.equal(denoising_loss(by_name, IMAGES)(vector), denoising_loss(by_place, IMAGES)(vector))
    assert torch.equal(by_name(vector, range(3), 1.5), by_place(2, range(3), 1.5))

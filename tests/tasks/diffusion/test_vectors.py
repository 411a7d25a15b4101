import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import every_family
from denoisers import CONFIGS
from for_each import for_each
from unweave.tasks.diffusion.condition_vectors import Table, tables, vectors
from unweave.tasks.diffusion.sample import guided_prediction, sample
from unweave.tasks.diffusion.sampler import Sampler

diffusers = pytest.importorskip("diffusers")
# of diffusers' own code, under NumPy 2 and this torch
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

from unweave.tasks.diffusion.class_denoisers import CLASS_DENOISERS, build_class_denoiser  # noqa: E402  # needs diffusers

SHAPE = (1, 4, 4)
CLASSES = torch.tensor([0, 3, 4, 1, 2, 3])
SAMPLERS = (Sampler(steps=4), Sampler("dpm", steps=4, guidance=2.5), Sampler(steps=4, eta=1.0, guidance=0.0))


class Own(every_family.Denoiser):
    """A user's denoiser whose class embedding takes vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = Table.of(self.condition)


def of(family: str) -> tuple[nn.Module, every_family.Diffusion]:
    problem = every_family.problem("denoiser" if family == "own" else family)
    if family != "own":
        return problem.model, problem.task
    model = Own()
    model.load_state_dict(problem.model.state_dict())
    return model, problem.task


KINDS = ("unet", "dit", "own")


@pytest.mark.parametrize("how", SAMPLERS, ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_of_a_class_draws_the_images_of_the_class_bit_for_bit(kind: str, how: Sampler):
    model, task = of(kind)
    by_class = sample(model, task, CLASSES, shape=SHAPE, how=how, rounded=False)
    by_vector = sample(model, task, vectors(model, CLASSES), shape=SHAPE, how=how, rounded=False)
    assert torch.equal(by_class, by_vector)
    other = sample(model, task, vectors(model, CLASSES.flip(0)), shape=SHAPE, how=how, rounded=False)
    assert torch.equal(by_class, other) == (how.guidance == 0)


@for_each("kind", KINDS)
def test_images_of_vectors_do_not_depend_on_the_chunk(kind: str):
    model, task = of(kind)
    model.double()
    between = vectors(model, CLASSES).lerp(vectors(model, CLASSES.flip(0)), 0.3)
    batched, single = (
        sample(model, task, between, shape=SHAPE, how=SAMPLERS[1], chunk=chunk, rounded=False)
        for chunk in (100, 1)
    )
    torch.testing.assert_close(single, batched, rtol=0, atol=1e-6)


@for_each("kind", KINDS)
def test_the_gradient_of_a_vector_is_that_of_its_differences(kind: str):
    model, task = of(kind)
    model = model.double().eval()
    x, vector = torch.randn(2, *SHAPE, dtype=torch.float64), vectors(model, torch.tensor([3])).detach()

    def loss(vector: Tensor) -> Tensor:
        return guided_prediction(model, task, x, 300, vector.expand(2, -1), 1.5).square().mean()

    assert torch.autograd.gradcheck(loss, vector.requires_grad_(), eps=1e-6, atol=1e-7)
    assert bool(torch.autograd.grad(loss(vector), vector)[0].all())


@pytest.mark.parametrize("name", CLASS_DENOISERS)
def test_weights_names_and_configuration_are_those_of_diffusers(name: str):
    torch.manual_seed(1)
    ours = build_class_denoiser(CONFIGS[name])
    torch.manual_seed(1)
    theirs = getattr(diffusers, name).from_config(CONFIGS[name])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for mine, yours in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, yours)
    rebuilt_model = CLASS_DENOISERS[name].from_config(ours.config)
    assert dict(rebuilt_model.config) == dict(ours.config) and len(tables(rebuilt_model)) == len(tables(ours))


def test_a_transformer_has_a_table_per_block_and_its_vector_holds_them_all():
    model = build_class_denoiser(CONFIGS["DiTTransformer2DModel"])
    parts = tables(model)
    assert [table.start for table in parts] == [0, 8] and parts[0].weight is not parts[1].weight
    expected = torch.cat([parts[0].weight[2], parts[1].weight[2]])
    assert torch.equal(vectors(model, torch.tensor([2]))[0], expected)
    assert [table.start for table in tables(copy.deepcopy(model))] == [0, 8]


def test_a_vector_of_another_length_is_refused():
    model, task = of("dit")
    with pytest.raises(ValueError, match=r"takes vectors of shape \[8\], found \[9\]"):
        sample(model, task, torch.zeros(2, 9), shape=SHAPE)


def test_a_denoiser_that_takes_no_vectors_is_refused_by_name():
    plain = every_family.problem("denoiser")
    for call in (
        lambda: sample(plain.model, plain.task, torch.zeros(2, 16), shape=SHAPE),
        lambda: vectors(plain.model, CLASSES),
    ):
        with pytest.raises(
            ValueError, match="Denoiser takes classes and no vectors: make its class embedding"
        ):
            call()


def test_guidance_without_a_null_condition_is_refused_for_vectors_too():
    model, task = of("unet")
    with pytest.raises(ValueError, match="guidance 2.0 needs a null condition"):
        sample(
            model,
            replace(task, null=None, drop=0.0),
            vectors(model, CLASSES),
            shape=SHAPE,
            how=Sampler(guidance=2.0),
        )


def test_gradient_checkpointing_leaves_the_gradient_of_a_vector_alone():
    model, _ = of("dit")
    x, time = torch.randn(2, *SHAPE), torch.tensor([100, 700])
    gradients = []
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        switch()
        vector = vectors(model, torch.tensor([3, 1])).detach().requires_grad_()
        model.train()(x, time, vector).square().mean().backward()
        gradients.append(vector.grad)
    torch.testing.assert_close(*gradients)
    assert bool(gradients[0].all())

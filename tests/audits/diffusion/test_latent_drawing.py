import copy

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import text_to_image  # noqa: E402  # needs diffusers
from unweave.audits.diffusion.drawing import Relearner, denoising_loss  # noqa: E402
from unweave.audits.diffusion.latent_drawing import LatentDrawing, PromptedPipeline  # noqa: E402
from unweave.audits.diffusion.sweeps import Generate  # noqa: E402
from unweave.descent.descend import Descent  # noqa: E402
from unweave.tasks.diffusion.autoencoder import decode  # noqa: E402
from unweave.tasks.diffusion.sample import Start, sample  # noqa: E402
from unweave.tasks.diffusion.sampler import Sampler  # noqa: E402

PROMPTS = text_to_image.prompts()
HOW = Sampler("ddim", 4, guidance=3.0)


@pytest.fixture
def model() -> PromptedPipeline:
    return PromptedPipeline(text_to_image.pipeline(), PROMPTS)


@pytest.fixture
def drawing(model: PromptedPipeline) -> LatentDrawing:
    return model.drawing(HOW)


def pictures(n: int) -> torch.Tensor:
    return torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


def test_an_image_is_the_decoded_latent_of_the_sampler(model: PromptedPipeline, drawing: LatentDrawing):
    assert isinstance(drawing, Generate)
    number = PROMPTS.number("a red three")
    latents = sample(
        model.denoiser,
        model.task,
        torch.full((3,), number),
        shape=model.shape,
        how=HOW,
        seeds=[7, 3, 12],
        rounded=False,
    )
    images = drawing(number, [7, 3, 12], 3.0)
    assert torch.equal(images, decode(model.autoencoder, latents)) and images.shape == (3, 3, 16, 16)
    assert torch.equal(drawing(drawing.vector(number), [7, 3, 12], 3.0), images)


def test_embeddings_of_another_shape_are_refused(drawing: LatentDrawing):
    with pytest.raises(ValueError, match=r"takes vectors of shape \[77, 32\], found \[77, 31\]"):
        drawing(drawing.vector(0)[:, :-1], [0], 3.0)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
def test_a_start_takes_the_last_steps_and_at_full_strength_nearly_all_is_noise(
    model: PromptedPipeline, scheduler
):
    drawing = model.drawing(Sampler(scheduler, 4, guidance=1.0))
    (mean, _), seeds = drawing.inputs(pictures(2)), [5, 6]
    weak_start = drawing(0, seeds, 1.0, Start(mean, 0.25))
    strong_start = drawing(0, seeds, 1.0, Start(mean, 1.0))
    pure_noise, reconstruction = drawing(0, seeds, 1.0), decode(drawing.autoencoder, mean)

    def apart(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one.double() - other.double()).abs().mean())

    assert apart(weak_start, reconstruction) < apart(strong_start, reconstruction)
    assert apart(strong_start, pure_noise) < apart(weak_start, pure_noise)
    with pytest.raises(ValueError, match=r"strength must be in \(0, 1\], found 0"):
        Start(mean, 0.0)


def test_a_copy_learns_images_and_the_model_stays(drawing: LatentDrawing):
    weights = torch.nn.utils.parameters_to_vector(drawing.model.parameters()).detach().clone()
    relearner = Relearner(drawing, 0, Descent(lr=1e-3, steps=3, batch=4, optimizer="adam"), checks=(2,))
    (zero, first), (two, middle), (three, last) = relearner(pictures(10), copy.deepcopy)
    assert (zero, two, three) == (0, 2, 3)
    assert torch.equal(first(0, [1], 3.0), drawing(0, [1], 3.0))
    assert not torch.equal(last(0, [1], 3.0), middle(0, [1], 3.0))
    assert torch.equal(torch.nn.utils.parameters_to_vector(drawing.model.parameters()), weights)


def test_the_loss_of_an_embedding_has_a_gradient(drawing: LatentDrawing):
    loss = denoising_loss(drawing, pictures(3), draws=4)
    vector = drawing.vector(0).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(vector), [vector])
    assert gradient.shape == (77, 32) and bool(gradient.abs().sum() > 0)


def test_images_that_the_autoencoder_does_not_take_are_refused(drawing: LatentDrawing):
    with pytest.raises(ValueError, match="takes images of 3 channels whose sides are multiples of 2"):
        drawing.inputs(pictures(2)[:, :, :15])


def test_an_autoencoder_that_fails_is_named(drawing: LatentDrawing):
    from unweave.errors import Failed

    with pytest.raises(Failed, match="a decoded image is not finite"):
        drawing.as_images(torch.full((1, 4, 8, 8), float("nan")))

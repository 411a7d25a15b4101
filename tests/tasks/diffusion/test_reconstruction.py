import pytest
import torch
from diffusers import AutoencoderKL
from torch.distributions import Normal, kl_divergence

from stable_diffusion import VAE
from unweave.data import Raw
from unweave.tasks.diffusion.reconstruction import Reconstructing, Reconstruction

TASK = Reconstruction((4, 8, 8), absolute=0.3, divergence_weight=0.01)


def raw(n: int = 5) -> Raw:
    pixels = torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    return Raw(torch.arange(n), (pixels,), torch.zeros(n, dtype=torch.int64))


@pytest.fixture
def model() -> Reconstructing:
    return Reconstructing(AutoencoderKL(**VAE)).eval()


def test_the_loss_is_that_of_its_terms(model: Reconstructing, generator: torch.Generator):
    batch = TASK.draw(raw(), generator)
    x, noise = batch.inputs
    posterior = model.autoencoder.encode(x).latent_dist
    reconstruction = model.autoencoder.decode(posterior.mean + posterior.std * noise).sample
    divergence = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).flatten(1).mean(1)
    error = (reconstruction - x).flatten(1)
    expected = error.square().mean(1) + 0.3 * error.abs().mean(1) + 0.01 * divergence
    assert torch.allclose(TASK.loss(model(x, noise), batch.target), expected, atol=1e-5)


def test_an_image_keeps_its_noise_in_another_batch():
    batch = TASK.draw(raw(), torch.Generator().manual_seed(1))
    pixels = raw().inputs[0]
    part = Raw(torch.tensor([3]), (pixels[3:4],), torch.zeros(1, dtype=torch.int64))
    part_batch = TASK.draw(part, torch.Generator().manual_seed(1))
    for one, other in zip(part_batch.inputs, batch.inputs, strict=True):
        assert torch.equal(one, other[3:4])
    assert float(batch.inputs[1].std()) == pytest.approx(1, abs=0.1)


def test_divergence_compares_reconstructions_alone():
    one, other = torch.randn(2, 769), torch.randn(2, 769)
    expected = (one - other)[:, :768].square().mean(1)
    assert torch.allclose(TASK.divergence(one, other), expected)


def test_an_image_has_no_wrong_reconstruction(generator: torch.Generator):
    with pytest.raises(ValueError, match="forget in the denoiser"):
        TASK.mislabel(TASK.draw(raw(), generator), lambda inputs: torch.zeros(1))

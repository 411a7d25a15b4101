import pytest
import torch
from diffusers import AutoencoderKL

from for_each import for_each
from stable_diffusion import VAE
from unweave.tasks.diffusion import autoencoder


@for_each(("pixels", "largest"), [(512 * 512, 1), (256 * 256, 4), (16 * 16, 16), (1024**2, 1)])
def test_large_images_are_encoded_few_at_a_time(pixels: int, largest: int):
    assert autoencoder.count_at_once(pixels) == largest


def test_the_images_at_a_time_change_no_latent_and_no_image(monkeypatch: pytest.MonkeyPatch):
    model = AutoencoderKL(**VAE).eval()
    images = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    mean, deviation = autoencoder.encode(model, images)
    decoded_images = autoencoder.decode(model, mean, rounded=False)
    sizes: list[int] = []
    for part in (model.encoder, model.decoder):
        part.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(autoencoder, "PIXELS", 2 * 16 * 16)
    for before, after in zip((mean, deviation), autoencoder.encode(model, images), strict=True):
        torch.testing.assert_close(after, before)
    torch.testing.assert_close(autoencoder.decode(model, mean, rounded=False), decoded_images)
    assert sizes == [2, 1, 2, 1]

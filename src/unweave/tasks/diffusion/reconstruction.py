r"""The task of an autoencoder: to reconstruct images from latents that are close to noise.

The loss of an image is :math:`\mathrm{mean}\,e^2 + w_1\, \mathrm{mean}\,|e| + w_2\, \mathrm{KL}`, with the
error :math:`e` per pixel and the divergence of its latents from :math:`N(0, 1)`, a mean over their numbers.
As in Stable Diffusion, but without the perceptual loss and the discriminator. Needs the extra
`unweave[diffusion]`.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import FloatTensor, Tensor, nn

from unweave.data import Raw
from unweave.data.keyed_draws import draw_key
from unweave.tasks import Batch, Predict
from unweave.tasks.diffusion import images, keyed_noise


class Reconstructing(nn.Module):
    """An autoencoder that answers with its reconstruction and the divergence of its latents.

    Args:
        autoencoder: The autoencoder.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(
        self, x: Float[Tensor, "batch channel height width"], noise: Float[Tensor, "batch latent h w"]
    ) -> Float[Tensor, "batch numbers"]:
        """The pixels of the reconstructions, and in the last column the divergences, in nats a number."""
        posterior = self.autoencoder.encode(x, return_dict=False)[0]
        latents = cast(FloatTensor, posterior.mean + posterior.std * noise)
        reconstruction = self.autoencoder.decode(latents, return_dict=False)[0]
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).flatten(1)
        return torch.cat([reconstruction.flatten(1), divergence.mean(1, keepdim=True)], 1)


@dataclass(frozen=True)
class Reconstruction:
    """Images, each with the noise of its latents; the target is the image itself.

    Args:
        latent: Channels, height and width of a latent.
        absolute: The weight of the mean absolute error; of the mean squared error it is one.
        divergence_weight: The weight of the divergence.
    """

    family: ClassVar[str] = "autoencoder"
    latent: tuple[int, int, int]
    absolute: float = 0.3
    divergence_weight: float = 1e-3

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        """Draws the noise of each image from its id and the key."""
        clean, key = images(raw), draw_key(generator)
        noise = keyed_noise(raw.ids, key, clean.new_empty(len(clean), *self.latent), 0)
        return Batch(raw.ids, (clean, noise), clean.flatten(1), clean.flatten(1), key=key)

    def loss(
        self, output: Float[Tensor, "batch numbers"], target: Float[Tensor, "batch pixels"]
    ) -> Float[Tensor, " batch"]:
        """The loss of each image."""
        error = output[:, :-1] - target
        return (
            error.square().mean(1)
            + self.absolute * error.abs().mean(1)
            + self.divergence_weight * output[:, -1]
        )

    def divergence(
        self, output: Float[Tensor, "batch numbers"], reference: Float[Tensor, "batch numbers"]
    ) -> Float[Tensor, " batch"]:
        """The mean squared difference of two reconstructions."""
        return (output - reference)[:, :-1].square().mean(1)

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        """Raises: an image has no wrong reconstruction."""
        raise ValueError("an autoencoder has no labels to replace: forget in the denoiser")

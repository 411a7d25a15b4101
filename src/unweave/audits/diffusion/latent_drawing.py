"""A text-to-image model for attacks and exams: a pipeline under a list of prompts that draws images.

Needs the extra `unweave[diffusion]`.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from unweave.audits.diffusion.clip_encoder import ClipEncoder
from unweave.audits.diffusion.drawing import Drawing
from unweave.audits.diffusion.images import check_images
from unweave.data import Source
from unweave.data.latents import Latents
from unweave.tasks.diffusion.autoencoder import AT_ONCE, decode_finite, encode, refuse_other_images
from unweave.tasks.diffusion.sample import to_bytes
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion
from unweave.tasks.diffusion.text_to_image import Prompts, make_task


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentDrawing(Drawing):
    """Draws images from a denoiser of latents.

    Args:
        autoencoder: Makes images of latents, and latents of images.
    """

    autoencoder: AutoencoderKL

    def as_images(self, drawn: Float[Tensor, "n channel height width"]) -> Tensor:
        """The images of latents.

        Raises:
            Failed: If an image is not finite.
        """
        chunks = drawn.split(AT_ONCE)  # as numbers, images take four times the memory of bytes
        return torch.cat([to_bytes(decode_finite(self.autoencoder, each)) for each in chunks])

    def check(self, images: Tensor) -> Tensor:
        """Returns real images, checked."""
        refuse_other_images(self.autoencoder, check_images(images))
        return images

    def inputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """The mean and the deviation of the latents of real images."""
        return encode(self.autoencoder, self.check(images))

    def clean(self, images: Tensor) -> Float[Tensor, "n channel height width"]:
        """The mean latents of real images."""
        return self.inputs(images)[0]

    def source(self, images: Tensor, condition: int) -> Source:
        """The latents of real images of a prompt."""
        mean, deviation = encode(self.autoencoder, self.check(images))
        return Latents(mean, deviation, torch.full((len(images),), condition))


class PromptedPipeline(nn.Module):
    """A pipeline under a list of prompts, as one model.

    Args:
        pipeline: The pipeline.
        prompts: The prompts.

    Raises:
        ValueError: If a prompt is too long; the error names it.
    """

    def __init__(self, pipeline: StableDiffusion, prompts: Prompts) -> None:
        super().__init__()
        self.denoiser = pipeline.model(prompts)
        self.autoencoder, self.text_encoder = pipeline.autoencoder, pipeline.text_encoder
        self.shape, self.task = pipeline.shape, make_task(prompts, pipeline.schedule)
        self.encoder = ClipEncoder(pipeline.text_encoder, pipeline.tokenizer, pipeline.tokens(prompts))

    def drawing(self, how: Sampler) -> LatentDrawing:
        """Draws images under the prompts."""
        return LatentDrawing(self.denoiser, self.task, self.shape, how, autoencoder=self.autoencoder)

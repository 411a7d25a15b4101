"""The exam of class-conditional denoisers of latents. Needs the extra `unweave[diffusion]`."""

from dataclasses import dataclass, field

from diffusers import AutoencoderKL
from torch import nn

from unweave.audits.diffusion.exam import DiffusionExam
from unweave.audits.diffusion.latent_drawing import LatentDrawing


@dataclass(frozen=True)
class LatentSpace:
    """The latents of a pipeline.

    Args:
        digest: SHA-256 of the weights of the autoencoder, which stands for it in keys of caches.
        shape: Channels, height and width of a latent.
        autoencoder: Converts images to latents and back.
    """

    digest: str
    shape: tuple[int, int, int]
    autoencoder: AutoencoderKL = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class LatentExam(DiffusionExam):
    """The questions to denoisers of latents about one split of images.

    Args:
        space: The latents.
    """

    space: LatentSpace

    @property
    def digest(self) -> str:
        """Digest of the sampler, its seeds, the budget of attackers, the recogniser and the autoencoder."""
        return f"{super().digest}-{self.space.digest[:8]}"

    def drawing(self, model: nn.Module) -> LatentDrawing:
        """The drawing of latents from a model, decoded to images."""
        autoencoder = self.space.autoencoder
        nn.Module.to(autoencoder, next(model.parameters()).device)
        return LatentDrawing(model, self.task, self.space.shape, self.sampler, autoencoder=autoencoder)

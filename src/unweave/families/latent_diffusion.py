"""The family of class-conditional denoisers of latents, which are read from a folder of diffusers.

Needs the extra `unweave[diffusion]`.
"""

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from unweave.audits.diffusion.latent_exam import LatentExam, LatentSpace
from unweave.data.encoded_images import EncodedImages
from unweave.families.diffusion import DiffusionFamily
from unweave.families.family import Device
from unweave.split import Split
from unweave.tasks.diffusion import Diffusion


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionFamily(DiffusionFamily):
    """Denoisers that generate the latents of images of a class.

    Args:
        latents: The latents.
    """

    former_class: ClassVar[str | None] = None
    latents: LatentSpace

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Diffusion:
        """Denoising of latents."""
        return replace(super().task(n_classes, forgotten), space="latents")

    def exam(
        self, split: Split, *, device: Device = None, searching: bool = False, cache: Path | None = None
    ) -> LatentExam:
        """Images of every class, drawn as latents."""
        exam = super().exam(of_images(split), device=device, searching=searching, cache=cache)
        settings = {each.name: getattr(exam, each.name) for each in dataclasses.fields(exam)}
        return LatentExam(**settings, space=self.latents)


def of_latents(family: DiffusionFamily, latents: LatentSpace) -> LatentDiffusionFamily:
    """The family with the settings of another, for denoisers of latents."""
    settings = {each.name: getattr(family, each.name) for each in dataclasses.fields(family)}
    return LatentDiffusionFamily(**settings, latents=latents)


def of_images(split: Split) -> Split:
    """The split over images in place of their latents."""
    train, held_out = (
        each.images if isinstance(each, EncodedImages) else each for each in (split.train, split.held_out)
    )
    return Split(train, split.forget, held_out, calibration=split.calibration.tolist())

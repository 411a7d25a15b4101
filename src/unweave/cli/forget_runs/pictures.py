"""Pictures of what a text-to-image model draws before and after it forgot a concept.

Needs the extra `unweave[diffusion]`; `unweave forget` imports it only if pictures are asked for.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unweave.audits.diffusion.images_exam import Drawn, draw_rows
from unweave.audits.pictures import png_uri
from unweave.record import record
from unweave.record.files import draft
from unweave.result import PRETRAINED
from unweave.tasks.diffusion.autoencoder import decode_finite, move_to
from unweave.tasks.diffusion.drawn_folder import AT_ONCE
from unweave.tasks.diffusion.sample import refuse_impossible, sample, to_bytes
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load
from unweave.tasks.diffusion.text_to_image import Prompts, make_task

FILE = "pictures.png"
"""On the left what the original draws, on the right what the model draws that forgot; a row per prompt."""

FIRST_SEED = 2 * 10**9
"""The first seed of pictures."""


@dataclass(frozen=True)
class PicturesToDraw:
    """The pictures that a run draws of a model before and after.

    Args:
        concept: Prompts of the concept.
        retain: Prompts to keep.
        each: The number of pictures of each prompt, from the same noise for both models.
        sampler: How to draw them.
        device: The device to draw on.
    """

    concept: Sequence[str]
    retain: Sequence[str]
    each: int
    sampler: Sampler
    device: str

    @property
    def prompts(self) -> Prompts:
        """All prompts, those of the concept first."""
        return Prompts((*self.concept, *self.retain))

    def refuse_undrawable(self, pipeline: StableDiffusion) -> None:
        """Raises a ValueError if a prompt is too long for a pipeline, or the sampler does not fit it."""
        prompts = self.prompts
        pipeline.tokens(prompts)
        task = make_task(prompts, pipeline.schedule)
        refuse_impossible(task, torch.arange(len(prompts.texts)), self.sampler)

    def draw(self, pipeline: StableDiffusion) -> Drawn:
        """Images uint8 [n, channel, height, width] of each prompt, by its place.

        Raises:
            Failed: If an image is not finite.
        """
        prompts = self.prompts
        model, task = pipeline.drawing_model(prompts).to(self.device), make_task(prompts, pipeline.schedule)
        latents = sample(
            model,
            task,
            torch.arange(len(prompts.texts)).repeat_interleave(self.each),
            shape=pipeline.shape,
            how=self.sampler,
            seeds=[FIRST_SEED + number for _ in prompts.texts for number in range(self.each)],
            chunk=AT_ONCE,
            rounded=False,
        )
        with move_to(self.device, pipeline.autoencoder):
            images = to_bytes(decode_finite(pipeline.autoencoder, latents))
        return dict(enumerate(images.split(self.each)))


def write_pictures(original: StableDiffusion, folder: Path, pictures: PicturesToDraw) -> Path:
    """Draws from the original and from the model in a run's folder; adds the pictures to its record, too.

    Args:
        original: The pipeline before.
        folder: The folder of the run.
        pictures: What to draw.

    Returns:
        The file of the pictures.
    """
    framed_rows, edited_pipeline = range(len(pictures.concept)), load(folder / PRETRAINED)
    pixels = [draw_rows(pictures.draw(pipeline), framed_rows) for pipeline in (original, edited_pipeline)]
    content = record.load(folder)
    ((name, stage),) = content["stages"].items()
    (method,) = stage["methods"]
    sheets = dict(zip(("original", method), map(png_uri, pixels), strict=True))
    prompts = {"of the concept": list(pictures.concept), "to keep": list(pictures.retain)}
    new_stage = {**stage, "sheets": sheets, "data": {**stage["data"], "prompts": prompts}}
    with draft(folder / FILE) as draft_path:
        Image.fromarray(np.concatenate(pixels, axis=1)).save(draft_path, format="PNG")
        os.replace(draft_path, folder / FILE)
    record.write({**content, "stages": {name: new_stage}}, folder)
    return folder / FILE

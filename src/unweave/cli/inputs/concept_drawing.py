"""A request to erase concepts whose images the model draws itself.

Needs the extra `unweave[diffusion]`; `unweave forget` imports it only for a text-to-image model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unweave.bench.workers import Listener, Progress
from unweave.cli.inputs.concept_prompts import prompts_of_request
from unweave.cli.inputs.concept_source import Generation
from unweave.cli.inputs.concept_work import ConceptWork, load_model, make_work
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.scope import TrainedWeights
from unweave.data.captions import FILE, TEXT, CaptionedImages, hold_out, read_captioned
from unweave.methods import Method
from unweave.record.record import package_digest
from unweave.tasks.diffusion.concept_request import refuse_forgotten_before
from unweave.tasks.diffusion.drawn_folder import ImagesToDraw, draw_folder
from unweave.tasks.diffusion.sample import refuse_impossible
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load, refuse_other_pipeline
from unweave.tasks.diffusion.text_to_image import Prompts, make_task

GENERATED = "generated"
"""The folder of the images that the model draws."""


@dataclass(frozen=True)
class DrawingPlan:
    """A pipeline, and a request whose images it is to draw.

    Args:
        concepts: The request as given.
        trained: The weights to train.
        pipeline: The pipeline.
        wanted: The images.
    """

    concepts: Concepts
    trained: TrainedWeights
    pipeline: StableDiffusion
    wanted: ImagesToDraw

    @property
    def counts(self) -> tuple[int, int]:
        """The number of images to forget, and of all training images."""
        holds = torch.arange(2 * self.wanted.each) < self.wanted.each
        train, _ = hold_out(holds)
        return int(holds[train].sum()), len(train)

    @property
    def prompts(self) -> tuple[list[str], list[str]]:
        """The prompts of the concepts, and the prompts to keep."""
        return list(self.wanted.forgotten), list(self.wanted.kept)

    def describe(self) -> str:
        """A sentence on its images."""
        count, (forget_prompts, keep_prompts) = self.wanted.each, self.prompts
        return (
            f"{self.concepts.named}: the model draws {count} images of the concept, from "
            f"{count_prompts(forget_prompts)}, and {count} images to keep, from "
            f"{count_prompts(keep_prompts)}; a fifth of both is held out."
        )

    def facts(self) -> dict[str, Any]:
        """The facts that a run depends on."""
        return {
            "verb": "forget",
            **self.pipeline.facts(Prompts((*self.wanted.forgotten, *self.wanted.kept))),
            "images": repr(self.wanted),
            "request": repr(self.concepts),
            "trained": repr(self.trained),
            "code": package_digest(),
        }

    def note(self, folder: Path) -> str:
        """Where its images are, and that nobody has looked at them."""
        return f"The model drew them: see in {folder / GENERATED} whether they show it. "

    def prepare(
        self, method: Method, folder: Path, folders: Iterable[Path], device: str | None, listener: Listener
    ) -> ConceptWork:
        """Draws the images that are missing, and reads all; first tries the method on blank ones."""
        self.refuse_unfit(method, device)
        place = folder / GENERATED
        image_folders = [each / GENERATED for each in folders if each != folder]
        draw_folder(
            self.pipeline,
            self.wanted,
            place,
            earlier=image_folders,
            device=device or "cpu",
            progress=lambda done, total: listener(Progress("images drawn", done, total)),
        )
        return make_work(self.pipeline, self.concepts, self.trained, *read_captioned(place), device)

    def refuse_unfit(self, method: Method, device: str | None) -> None:
        """Tries a method on blank images, up to its first pass.

        Raises:
            ValueError: If the method does not fit the request or the model.
        """
        self.blank_work(device).refuse_unfit(method, device)

    def blank_work(self, device: str | None) -> ConceptWork:
        """The work with blank images in the place of those to draw."""
        rows = tuple({FILE: f"{number}.png", TEXT: text} for number, (text, _) in enumerate(self.wanted.rows))
        blank = torch.zeros((1, *self.pipeline.image_shape), dtype=torch.uint8)
        images = CaptionedImages(blank.expand(len(rows), -1, -1, -1), rows, Path(GENERATED))
        return make_work(self.pipeline, self.concepts, self.trained, images, None, device)


def count_prompts(prompts: Sequence[str]) -> str:
    """The number of prompts in words."""
    return f"{len(prompts)} prompt{'' if len(prompts) == 1 else 's'}"


def plan_drawing(
    model: str, concepts: Concepts, trained: TrainedWeights, generation: Generation, seed: int
) -> DrawingPlan:
    """Reads a pipeline, and plans the images that it draws.

    Raises:
        ValueError: If the pipeline or the request can't be used, there is nothing to keep, or a prompt is too
            long or holds a concept that was forgotten before.
    """
    forget_prompts, keep_prompts = prompts_of_request(concepts, generation)
    assert generation.generate is not None
    for what, count in (("concepts", len(concepts.concept)), ("prompts to keep", len(keep_prompts))):
        if generation.generate < count:
            raise ValueError(
                f"--generate must be at least one image of each of {count} {what}, found "
                f"{generation.generate}: draw more, or name fewer"
            )
    refuse_other_pipeline(Path(model))
    pipeline, prompts = load(model), Prompts((*forget_prompts, *keep_prompts))
    refuse_forgotten_before(pipeline, keep_prompts)
    refuse_undrawable(pipeline, prompts, generation.how)
    load_model(pipeline, Prompts(()), trained)  # raises if the model has no weights of the scope
    images = ImagesToDraw(forget_prompts, keep_prompts, generation.generate, seed, generation.how)
    return DrawingPlan(concepts, trained, pipeline, images)


def refuse_undrawable(pipeline: StableDiffusion, prompts: Prompts, how: Sampler) -> None:
    """Raises if a prompt is too long, or the sampler does not fit the model."""
    pipeline.tokens(prompts)
    refuse_impossible(make_task(prompts, pipeline.schedule), torch.arange(len(prompts.texts)), how)

"""Images that a text-to-image model draws itself, for a request without images of its user.

They are a folder of images with captions (see `data.captions`). Each image is named by the digest of all that
it depends on: what is there is never drawn again. Needs the extra `unweave[diffusion]`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from unweave.data.captions import FILE, METADATA, TEXT, holds_phrase
from unweave.record.files import draft, write_atomically
from unweave.tasks.diffusion.autoencoder import decode_finite, move_to
from unweave.tasks.diffusion.sample import sample, to_bytes
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion
from unweave.tasks.diffusion.text_to_image import Prompts, make_task

FORMAT = 1
"""The number of the images of a digest: whoever changes how they are drawn raises it."""

TEMPLATES = ("{}", "an image of {}", "a photo of {}")
"""The prompts of a concept; the second is that of SalUn's experiments on Imagenette."""

AT_ONCE = 8
"""The number of images drawn together; an interruption loses no more."""

FACTS = "drawn.json"


@dataclass(frozen=True)
class ImagesToDraw:
    """The images that a request needs; prompts take turns.

    Args:
        forgotten: The prompts of the concepts.
        kept: The prompts to keep.
        each: The number of images of the concepts, and of what is kept.
        seed: The first seed.
        sampler: How to draw them.
    """

    forgotten: tuple[str, ...]
    kept: tuple[str, ...]
    each: int
    seed: int
    sampler: Sampler

    @property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """The prompt and the seed of each image: first those of the concepts."""
        return tuple(
            (prompts[number % len(prompts)], self.seed + number)
            for prompts in (self.forgotten, self.kept)
            for number in range(self.each)
        )

    def names(self, model: Mapping[str, object]) -> tuple[str, ...]:
        """The file of each image: the digest of all that it depends on.

        Args:
            model: The facts about the model.
        """
        settings = {"format": FORMAT, "sampler": asdict(self.sampler), **model}
        facts = (
            json.dumps({**settings, "prompt": text, "seed": seed}, sort_keys=True) for text, seed in self.rows
        )
        return tuple(f"{hashlib.sha256(each.encode()).hexdigest()[:16]}.png" for each in facts)


def prompts_of(
    concepts: Sequence[str], listed: Iterable[str], keep: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompts of the concepts, and the prompts to keep.

    Args:
        concepts: The concepts as the user named them.
        listed: Further prompts. Those that hold a concept replace its templates; all others are kept.
        keep: Prompts to keep.
    """
    listed_prompts = tuple(listed)
    prompts_by_concept = {
        each: [text for text in listed_prompts if holds_phrase(text, each)] for each in concepts
    }
    turns_by_concept = [
        prompts_by_concept[each] or [template.format(each) for template in TEMPLATES] for each in concepts
    ]
    longest = max(len(texts) for texts in turns_by_concept)
    turns = (texts[turn % len(texts)] for turn in range(longest) for texts in turns_by_concept)
    concept_prompts = {text for texts in prompts_by_concept.values() for text in texts}
    return tuple(dict.fromkeys(turns)), tuple(
        dict.fromkeys([*keep, *(t for t in listed_prompts if t not in concept_prompts)])
    )


def draw_folder(
    pipeline: StableDiffusion,
    images: ImagesToDraw,
    folder: Path,
    *,
    earlier: Iterable[Path] = (),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draws the images into a folder; goes on where an earlier call was interrupted.

    Args:
        pipeline: The model.
        images: The images.
        folder: Their folder. It gets its metadata last, so that a part of the images is no data.
        earlier: Folders of other runs; an image that one of them holds is copied.
        device: The device to draw on.
        progress: Called with the number of finished images, and the total.

    Raises:
        Failed: If an image is not finite.
    """
    model = {"weights": pipeline.digest(), "schedule": asdict(pipeline.schedule)}
    names = images.names(model)
    copy_known_images(names, folder, earlier)
    rows = dict(zip(names, images.rows, strict=True))
    jobs = [(name, *row) for name, row in rows.items() if not (folder / name).exists()]
    if jobs:
        draw_absent_images(pipeline, images, jobs, folder, device, progress or (lambda done, total: None))
    seeds = {name: seed for name, (_, seed) in rows.items()}
    facts = {**model, "sampler": asdict(images.sampler), "seeds": seeds}
    write_atomically(folder / FACTS, json.dumps(facts, indent=1) + "\n")
    lines = (json.dumps({FILE: name, TEXT: text}) for name, (text, _) in rows.items())
    write_atomically(folder / METADATA[0], "\n".join(lines) + "\n")


def copy_known_images(names: Iterable[str], folder: Path, earlier: Iterable[Path]) -> None:
    """Copies images that other folders hold."""
    folders = list(earlier)
    for name in names:
        source = next((each / name for each in folders if (each / name).is_file()), None)
        if source is not None and not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            with draft(folder / name) as draft_path:
                shutil.copyfile(source, draft_path)
                os.replace(draft_path, folder / name)


def draw_absent_images(
    pipeline: StableDiffusion,
    images: ImagesToDraw,
    jobs: Sequence[tuple[str, str, int]],
    folder: Path,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    """Draws some of the images, by their file, prompt and seed."""
    prompts = Prompts((*images.forgotten, *images.kept))
    model, task = pipeline.drawing_model(prompts).to(device), make_task(prompts, pipeline.schedule)
    with move_to(device, pipeline.autoencoder):
        for first in range(0, len(jobs), AT_ONCE):
            chunk = jobs[first : first + AT_ONCE]
            conditions = torch.tensor([prompts.number(text) for _, text, _ in chunk])
            latents = sample(
                model,
                task,
                conditions,
                shape=pipeline.shape,
                how=images.sampler,
                seeds=[seed for *_, seed in chunk],
                rounded=False,
            )
            for (name, *_), image in zip(
                chunk, to_bytes(decode_finite(pipeline.autoencoder, latents)), strict=True
            ):
                write_image(image, folder / name)
            progress(first + len(chunk), len(jobs))


def write_image(image: UInt8[Tensor, "channel height width"], path: Path) -> None:
    """Writes an image as PNG, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft(path) as draft_path:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(draft_path, format="PNG")
        os.replace(draft_path, path)

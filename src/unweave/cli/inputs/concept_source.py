"""The images of a request to forget a concept: a folder of them, or the flags of what the model draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from unweave.cli.options import parse_settings
from unweave.data.prompt_list import read_prompt_list
from unweave.methods.configure import configure
from unweave.tables import merge_tables
from unweave.tasks.diffusion.sampler import Sampler

SAMPLER = Sampler("ddim", steps=50, guidance=7.5, spacing="leading")
"""As Selective Amnesia draws from Stable Diffusion 1.4 (released code)."""

MOST_PICTURES = 6
"""The largest number of pictures of a prompt: a report shows no more side by side."""


@Parameter(name="*")
@dataclass(frozen=True)
class Generation:
    """The images that a text-to-image model draws itself, instead of --data.

    Args:
        generate: Without --data: the number of images of the concepts. The model draws them, and as many of
            the prompts to keep, into the folder generated. A concept such as "a three" is drawn under "a
            three", "an image of a three" and "a photo of a three". Prompts to keep come from --keep and
            --prompts.
        prompts: Without --data: a file of prompts, one a line, or a .csv file with a column prompt. Prompts
            with the words of a concept replace its three prompts; all others are prompts to keep.
        sampler: With --generate, or --pictures of forget: a setting of the sampler, such as steps=25 or
            scheduler=dpm; can be given several times. By default DDIM takes 50 steps with guidance 7.5.
    """

    generate: int | None = None
    prompts: Path | None = None
    sampler: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.generate is not None and self.generate < 2:
            raise ValueError(
                f"--generate must be at least 2, as a fifth of the images is held out, found {self.generate}"
            )

    @property
    def how(self) -> Sampler:
        """How to draw the images."""
        return configure(SAMPLER, parse_settings(self.sampler, "--sampler"), "--sampler")

    def all_prompts(self) -> tuple[str, ...]:
        """The prompts of the file."""
        return () if self.prompts is None else read_prompt_list(self.prompts)


@dataclass(frozen=True)
class RecipeGeneration(Generation):
    """The same with prompts and settings of a recipe.

    Args:
        own: The prompts of the recipe, as those of the file.
        own_sampler: The settings of its sampler, which those of the flags replace.
    """

    own: tuple[str, ...] = ()
    own_sampler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def how(self) -> Sampler:
        """How to draw the images."""
        settings = merge_tables(self.own_sampler, parse_settings(self.sampler, "--sampler"))
        return configure(SAMPLER, settings, "--sampler")

    def all_prompts(self) -> tuple[str, ...]:
        """The prompts of the recipe and of the file."""
        return (*self.own, *super().all_prompts())


NO_GENERATION = Generation()


def refuse_two_sources(
    data: str | None, generation: Generation, *, needs_images: bool = True, pictures: int = 0
) -> None:
    """Raises if images are needed and there are none, there are two sources, or flags draw nothing.

    Args:
        data: The folder.
        generation: The images to draw.
        needs_images: Whether the method needs any.
        pictures: The number of pictures to draw with the result.
    """
    if not 0 <= pictures <= MOST_PICTURES:
        raise ValueError(f"--pictures must be in 0..{MOST_PICTURES}, found {pictures}")
    if data is not None and generation.prompts is not None:
        raise ValueError("--prompts does not go with --data, whose captions are the prompts: leave one out")
    if needs_images and generation.generate is None and generation.prompts is not None:
        raise ValueError("--prompts goes with --generate, found none; uce alone needs no images")
    if generation.generate is None and generation.sampler and not pictures:
        raise ValueError("--sampler goes with --generate or, in forget, with --pictures, found neither")
    if needs_images and data is None and generation.generate is None:
        raise ValueError(
            "a pipeline does not hold the images that it was trained on: name a folder of images with "
            "captions (metadata.jsonl or metadata.csv) with --data, or let the model draw N images of the "
            "concept and N to keep with --generate N (uce alone needs no images)"
        )
    if data is not None and generation.generate is not None:
        raise ValueError("--data and --generate are two sources of images: leave one out")

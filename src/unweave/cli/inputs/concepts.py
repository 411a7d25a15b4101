"""`--concept`: the concepts that a text-to-image model forgets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unweave.cli.inputs.concept_source import NO_GENERATION, Generation
from unweave.cli.inputs.request import Request
from unweave.cli.project.text_to_image import is_pipeline


@Parameter(name="*")
@dataclass(frozen=True)
class Concepts:
    """The concepts that a text-to-image model forgets.

    Args:
        concept: A concept, such as "a three": the captions that hold its words are the forget set. Can be
            given several times.
        column: The column of the metadata whose values are the concepts; by default captions are searched.
        keep: A prompt to keep, even if no caption holds it; can be given several times.
        target: The prompt that replaces a concept; by default the empty one.
        captions: A file of whole captions that hold the concept, one a line, or a .csv file with a column
            prompt; by default the captions with its words.
        config: For a model in one .safetensors file: a local folder with the configuration of its pipeline.
    """

    concept: tuple[str, ...] = ()
    column: str | None = None
    keep: tuple[str, ...] = ()
    target: Annotated[str | None, Parameter(name="--as")] = None
    captions: Path | None = None
    config: Path | None = None

    @property
    def named(self) -> str:
        """The concepts in quotes."""
        return ", ".join(map(repr, self.concept))


NO_CONCEPT = Concepts()


def refuse_no_concept(
    model: str, concepts: Concepts, generation: Generation = NO_GENERATION, *, pictures: int = 0
) -> None:
    """Raises if a text-to-image pipeline is given without a concept, or settings of one without it."""
    if is_pipeline(Path(model)):
        raise ValueError(f"{model} holds a text-to-image model: name what to forget with --concept")
    if concepts != NO_CONCEPT or generation != NO_GENERATION or pictures:
        raise ValueError(
            "--column, --captions, --keep, --as, --config, --generate, --prompts, --sampler and --pictures "
            "go with --concept, found none"
        )


def refuse_other_requests(request: Request, tuned: Path | None, recipe: str | None) -> None:
    """Raises if a concept is named beside another forget set, or with settings for other models."""
    flags = [*request.flags(), *[name for name, value in (("tuned", tuned), ("recipe", recipe)) if value]]
    if flags:
        raise ValueError(f"--{flags[0]} does not go with --concept: leave one out")

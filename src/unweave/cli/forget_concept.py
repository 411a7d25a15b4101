"""`unweave forget FOLDER --concept ...`: erases concepts from a Stable Diffusion pipeline in a local folder.

The record says INCONCLUSIVE until `unweave audit` compares the model with retrained ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from cyclopts import Parameter

from unweave.bench.recipe import refuse_unfit_targets
from unweave.bench.workers import Listener, Progress
from unweave.cli.inputs import out, single_file
from unweave.cli.inputs.concept_source import NO_GENERATION, Generation, refuse_two_sources
from unweave.cli.inputs.extra import require_diffusion
from unweave.cli.inputs.forget_folder import CLAIM
from unweave.cli.inputs.request import Request
from unweave.cli.inputs.scope import Trained, refuse_layers_of_pipeline
from unweave.cli.options import CommonFlags
from unweave.cli.terminal import progress, show
from unweave.families.text_to_image_settings import text_to_image_method
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.record import record
from unweave.record.files import read_object
from unweave.result import PRETRAINED, Result, refuse_foreign
from unweave.tasks.diffusion.file_names import INDEX

PIPELINE = "StableDiffusionPipeline"


@Parameter(name="*")
@dataclass(frozen=True)
class Concepts:
    """The concepts that a text-to-image model forgets.

    Args:
        concept: A concept, such as "a three": the captions that hold its words are the forget set. Can be
            given several times.
        column: The column of the metadata that has the concepts as values, instead of the captions.
        keep: A prompt to keep that no caption needs to hold; can be given several times.
        target: The prompt that replaces a concept; by default the empty one.
        config: For a model in one .safetensors file: a local folder with the configuration of its pipeline.
    """

    concept: tuple[str, ...] = ()
    column: str | None = None
    keep: tuple[str, ...] = ()
    target: Annotated[str | None, Parameter(name="--as")] = None
    config: Path | None = None


NO_CONCEPT = Concepts()


@runtime_checkable
class Work(Protocol):
    """A pipeline, the request to it, and the model that a method edits."""

    def run(self, method: Method, *, seed: int, device: str | None) -> Result:
        """Runs a method on a copy of the model."""
        ...

    def save(self, result: Result, folder: Path, *, name: str) -> None:
        """Writes the record, the pipeline, and the low-rank additions if there are any."""
        ...


@runtime_checkable
class Plan(Protocol):
    """A pipeline, and a request whose images are read or can be drawn."""

    @property
    def concepts(self) -> Concepts:
        """The request as given."""
        ...

    @property
    def counts(self) -> tuple[int, int]:
        """The number of images to forget, and of all training images."""
        ...

    def facts(self) -> dict[str, Any]:
        """The facts that a run depends on."""
        ...

    def note(self, folder: Path) -> str:
        """A sentence on images that the model draws itself into a folder; empty if it draws none."""
        ...

    def prepare(self, folder: Path, earlier: Iterable[Path], device: str | None, listener: Listener) -> Work:
        """Draws the images that are missing; `earlier` are the folders of other runs."""
        ...


def refuse_no_concept(model: str, concepts: Concepts, generation: Generation = NO_GENERATION) -> None:
    """Raises if a text-to-image pipeline is given without a concept, or settings of one without it."""
    if is_pipeline(Path(model)):
        raise ValueError(f"{model} holds a text-to-image model: name what to forget with --concept")
    if concepts != NO_CONCEPT or generation != NO_GENERATION:
        raise ValueError("--column, --keep, --as, --config and --generate go with --concept, found none")


def refuse_other_requests(request: Request, tuned: Path | None, recipe: str | None) -> None:
    """Raises if a concept is named beside another forget set, or with settings for other models."""
    flags = [*request.flags(), *[name for name, value in (("tuned", tuned), ("recipe", recipe)) if value]]
    if flags:
        raise ValueError(f"--{flags[0]} does not go with --concept: leave one out")


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a text-to-image pipeline."""
    index = folder / INDEX
    return index.is_file() and read_object(index).get("_class_name") == PIPELINE


def forget_concept(
    model: str,
    concepts: Concepts,
    trained: Trained,
    *,
    method: str,
    tables: Mapping[str, Any],
    data: str | None,
    generation: Generation,
    dry_run: bool,
    flags: CommonFlags,
) -> int:
    """Writes a copy of a pipeline that has forgotten the concepts."""
    refuse_two_sources(data, generation)
    refuse_layers_of_pipeline(trained)
    chosen = configure(text_to_image_method(method), tables, f"method {method}")
    refuse_unfit_targets(chosen, "text-to-image", method)
    place = flags.out or Path("forgotten")
    out.refuse_within(place, Path(model), data)
    with (
        progress.show_progress(f"Reading {model}", quiet=flags.quiet) as listener,
        single_file.as_folder(model, concepts.config, place) as source,
    ):
        seed = flags.seed or 0
        plan = read_plan(str(source), concepts, trained, generation if data is None else data, seed)
        asked = plan.facts() | {"model": str(Path(model).resolve()), "method": repr(chosen)}
        asked |= {"seed": seed, "device": flags.device}
        folder = out.choose_folder(place, asked, claim=CLAIM)
        if is_done(folder, model):
            note = f"Done already: {folder} holds this run. Model: {folder / PRETRAINED}"
            return print_end(note, plan, folder=folder, flags=flags)
        refuse_foreign(folder)
        if dry_run:
            return print_end("Nothing was written.", plan, folder=folder, flags=flags)
        with out.open_folder(folder, asked, claim=CLAIM):
            work = plan.prepare(folder, out.earlier_folders(place), flags.device, listener)
            listener(Progress(method, 0, 1))
            result = work.run(chosen, seed=seed, device=flags.device)
            listener(Progress(method, 1, 1))
            work.save(result, folder, name=method)
            single_file.keep_folder(source, model, folder)
    spent = f"Forgot with {method} in {result.cost.seconds:.1f} s. Not audited."
    note = f"{plan.note(folder)}{spent} Model: {folder / PRETRAINED}"
    return print_end(note, plan, folder=folder, flags=flags)


def is_done(folder: Path, model: str) -> bool:
    """Whether a folder holds all files of a run."""
    whole = (folder / record.FILE).exists() and (folder / PRETRAINED).is_dir()
    return whole and single_file.kept_folder(model, folder).exists()


def read_plan(model: str, concepts: Concepts, trained: Trained, images: str | Generation, seed: int) -> Plan:
    """Reads a pipeline and its images, or plans what it draws itself.

    Raises:
        ValueError: If an extra is not installed, or the pipeline, the images or the request can't be used.
    """
    with require_diffusion():
        from unweave.cli.inputs import concept_drawing, concept_work
    if isinstance(images, Generation):
        return concept_drawing.plan_drawing(model, concepts, trained, images, seed)
    return concept_work.read(model, concepts, trained, images)


def print_end(note: str, plan: Plan, *, folder: Path, flags: CommonFlags) -> int:
    """Prints what was done; returns the exit code."""
    (n, of), named = plan.counts, list(plan.concepts.concept)
    if flags.json:
        show.print_json({"out": str(folder), "forgotten": n, "of": of, "concepts": named, "note": note})
    else:
        held = f"{', '.join(map(repr, named))}: {n} of {of} training images hold it."
        show.print_sentences(f"{held} {note}")
    return 0

"""`unweave forget FOLDER --concept ...`: erases concepts from a Stable Diffusion pipeline in a local folder.

The record says INCONCLUSIVE until `unweave audit` compares the model with retrained ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unweave.bench.workers import Progress
from unweave.cli.inputs import out, single_file
from unweave.cli.inputs.concept_recipe import learns_from_prompts, needs_images
from unweave.cli.inputs.concept_source import Generation, refuse_two_sources
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.extra import require_diffusion
from unweave.cli.inputs.forget_folder import CLAIM
from unweave.cli.inputs.scope import TrainedWeights, refuse_layers_of_pipeline
from unweave.cli.options import CommonFlags
from unweave.cli.terminal import progress, show
from unweave.families.text_to_image_settings import configure_text_to_image
from unweave.record import record
from unweave.record.files import sha256
from unweave.result import ADDITIONS, PRETRAINED, read_if_present, refuse_foreign
from unweave.tasks.diffusion.file_names import MANIFEST

if TYPE_CHECKING:
    from unweave.cli.forget_runs.pictures import PicturesToDraw
    from unweave.cli.inputs.concept_drawing import DrawingPlan
    from unweave.cli.inputs.concept_work import ConceptWork

    Plan = ConceptWork | DrawingPlan


NAMED = 5
"""The number of prompts that a line names."""

PICTURED = 2
"""The smallest number of prompts of the concepts, and of prompts to keep, that pictures are drawn of."""


def forget_concept(
    model: str,
    concepts: Concepts,
    trained: TrainedWeights,
    *,
    method: str,
    tables: Mapping[str, Any],
    data: str | None,
    generation: Generation,
    pictures: int,
    dry_run: bool,
    flags: CommonFlags,
) -> int:
    """Writes a copy of a pipeline that has forgotten the concepts."""
    refuse_two_sources(data, generation, needs_images=needs_images(method), pictures=pictures)
    refuse_layers_of_pipeline(trained)
    configured_method = configure_text_to_image(method, tables, f"method {method}")
    place = flags.out or Path("forgotten")
    out.refuse_within(place, Path(model), data, concepts.config)
    if data is not None:
        refuse_unused_prompts(method, concepts)
    with (
        progress.show_progress(f"Reading {model}", quiet=flags.quiet) as listener,
        single_file.as_folder(model, concepts.config, place) as source,
    ):
        seed = flags.seed or 0
        images = generation if data is None else data
        plan = read_plan(str(source), concepts, trained, images, seed, flags.device)
        to_draw = plan_pictures(plan, generation, flags, each=pictures) if pictures else None
        facts = plan.facts() | {"model": str(Path(model).resolve()), "method": repr(configured_method)}
        facts |= {"seed": seed, "device": flags.device}
        folder = out.choose_folder(place, facts, claim=CLAIM)
        elsewhere = "" if folder == place else f"{place} holds another run, so this one is in {folder}. "
        if is_done(folder, model, additions=trained.is_lora):
            note = f"Done already: {folder} holds this run."
        elif dry_run:
            refuse_foreign(folder)
            plan.refuse_unfit(configured_method, flags.device)
            note = f"It would run {method}."
        else:
            refuse_foreign(folder)
            with out.open_folder(folder, facts, claim=CLAIM):
                work = plan.prepare(
                    configured_method, folder, out.earlier_folders(place), flags.device, listener
                )
                listener(Progress(method, 0, 1))
                result = work.run(configured_method, seed=seed, device=flags.device)
                listener(Progress(method, 1, 1))
                work.save(result, folder, name=method)
                single_file.keep_folder(source, model, folder)
            note = f"{plan.note(folder)}Forgot with {method} in {result.cost.seconds:.1f} s. Not audited."
        if dry_run:
            ending = "Nothing was written."
        else:  # a drawing that fails leaves a finished run
            ending = f"{show_pictures(plan, folder, to_draw)} Model: {folder / PRETRAINED}"
    return print_end(f"{elsewhere}{note} {ending}", plan, folder=folder, flags=flags)


def refuse_unused_prompts(method: str, concepts: Concepts) -> None:
    """Raises if prompts to keep are named beside images, and the method learns from images alone."""
    if concepts.keep and not learns_from_prompts(method):
        raise ValueError(
            f"with --data, {method} keeps the images of --data and no further prompts: add images of "
            f"{concepts.keep[0]!r} to them, or leave out --keep"
        )


def is_done(folder: Path, model: str, *, additions: bool) -> bool:
    """Whether a folder holds all files of a run, as they were written."""
    names = [record.FILE, *([ADDITIONS] if additions else [])]
    is_complete = all((folder / name).exists() for name in names)
    return is_complete and single_file.kept_folder(model, folder).exists() and is_whole(folder)


def is_whole(folder: Path) -> bool:
    """Whether the record is finished, and the weights are those that were written beside it."""
    try:
        (stage,) = record.load(folder)["stages"].values()
    except ValueError:
        return False
    manifest = read_if_present(folder / PRETRAINED / MANIFEST)
    files = (folder / PRETRAINED / str(manifest.get("component"))).glob("*.safetensors")
    is_unchanged = any(sha256(each) == manifest.get("weights_after") for each in files)
    return is_unchanged and stage.get("request", {}).get("date") is not None  # what is added last


def read_plan(
    model: str,
    concepts: Concepts,
    trained: TrainedWeights,
    images: str | Generation,
    seed: int,
    device: str | None,
) -> "Plan":
    """Reads a pipeline and its images, or plans what it draws itself; or reads prompts alone.

    Raises:
        ValueError: If an extra is not installed, or the pipeline, the images or the request can't be used.
    """
    with require_diffusion():
        from unweave.cli.inputs import concept_drawing, concept_prompts, concept_work
    if isinstance(images, Generation) and images.generate is None:
        return concept_prompts.read_prompts(model, concepts, trained, images)
    if isinstance(images, Generation):
        return concept_drawing.plan_drawing(model, concepts, trained, images, seed)
    return concept_work.read(model, concepts, trained, images, device)


def plan_pictures(plan: "Plan", generation: Generation, flags: CommonFlags, *, each: int) -> "PicturesToDraw":
    """The pictures to draw: of every concept, and of as many prompts to keep, at least two of both.

    Raises:
        ValueError: If the sampler does not fit the model.
    """
    from unweave.cli.forget_runs.pictures import PicturesToDraw

    count = max(PICTURED, len(plan.concepts.concept))
    forget_prompts, keep_prompts = (texts[:count] for texts in plan.prompts)
    pictures = PicturesToDraw(forget_prompts, keep_prompts, each, generation.how, flags.device or "cpu")
    pictures.refuse_undrawable(plan.pipeline)
    return pictures


def show_pictures(plan: "Plan", folder: Path, pictures: "PicturesToDraw | None") -> str:
    """Draws pictures before and after, and says where they are; without any, how to get some."""
    from unweave.cli.forget_runs.pictures import FILE, write_pictures

    place = folder / FILE if pictures is None else write_pictures(plan.pipeline, folder, pictures)
    if not place.exists():
        return (
            "To see whether it still draws the concept, add --pictures 4; to measure it, run unweave audit."
        )
    return f"Before and after: {place}. To measure it, run unweave audit."


def print_end(note: str, plan: "Plan", *, folder: Path, flags: CommonFlags) -> int:
    """Prints what was done; returns the exit code."""
    (n, of), (forget_prompts, keep_prompts) = plan.counts, plan.prompts
    if flags.json:
        facts = {"out": str(folder), "forgotten": n, "of": of, "concepts": list(plan.concepts.concept)}
        from unweave.cli.forget_runs.pictures import FILE

        pictures = str(folder / FILE) if (folder / FILE).exists() else None
        facts |= {"prompts": {"forget": forget_prompts, "keep": keep_prompts}, "pictures": pictures}
        show.print_json({**facts, "note": note})
    else:
        show.print_sentences(
            plan.describe(), f"To forget: {name_some(forget_prompts)}", f"To keep: {name_some(keep_prompts)}"
        )
        show.print_sentences(note)
    return 0


def name_some(prompts: Sequence[str]) -> str:
    """The first of some prompts, and how many more there are."""
    more = f", and {len(prompts) - NAMED} more" if len(prompts) > NAMED else ""
    return ", ".join(map(repr, prompts[:NAMED])) + more

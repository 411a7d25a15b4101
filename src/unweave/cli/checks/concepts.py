"""`unweave check FOLDER --concept ...`: counts the data of a request to a text-to-image model, and its cost.

Needs the extra `unweave[diffusion]`; `unweave check` imports it only for such a model.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unweave.audits.diffusion.kid import FEWEST
from unweave.audits.diffusion.real_images import PICTURES
from unweave.bench.study import REFERENCES
from unweave.bench.workers import Listener
from unweave.cli.checks.concept_costs import estimate_costs
from unweave.cli.checks.facts import model_line, weight_facts
from unweave.cli.checks.findings import print_costs, print_notes, usable_line, write_findings
from unweave.cli.inputs import concept_work, out, single_file
from unweave.cli.inputs.concept_drawing import DrawingPlan, plan_drawing
from unweave.cli.inputs.concept_prompts import read_prompts
from unweave.cli.inputs.concept_recipe import ConceptRecipe, needs_images
from unweave.cli.inputs.concept_source import Generation, refuse_two_sources
from unweave.cli.inputs.concept_work import ConceptWork
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.scope import TEXT_TO_IMAGE, TrainedWeights, refuse_layers_of_pipeline
from unweave.cli.options import EVERY, CommonFlags, parse_names
from unweave.cli.terminal import progress, show
from unweave.families.text_to_image import TextToImageFamily
from unweave.families.text_to_image_settings import PRESETS, configure_text_to_image
from unweave.methods import Method


def check_concept(
    model: str,
    concepts: Concepts,
    trained: TrainedWeights,
    *,
    data: str | None,
    generation: Generation,
    methods: str | None,
    recipe: ConceptRecipe | None,
    flags: CommonFlags,
) -> int:
    """Counts the data of a request, and estimates the cost of methods from a few steps of each.

    Raises:
        ValueError: If the pipeline, the images or the request can't be used.
        Failed: If an image to draw, or a latent, is not finite.
    """
    names = choose_methods(methods, recipe)
    with_images = any(map(needs_images, names))
    if recipe is not None:
        concepts, trained = recipe.concepts(concepts, keeps=True), recipe.trained(trained)
        generation = recipe.generation(generation, data, concepts.concept, needs_images=with_images)
    refuse_two_sources(data, generation, needs_images=with_images)
    refuse_layers_of_pipeline(trained)
    tables = {name: {} if recipe is None else recipe.settings(name, {}) for name in names}
    configured_methods = {name: configure_text_to_image(name, table, name) for name, table in tables.items()}
    if flags.out is not None:
        out.refuse_within(flags.out, Path(model), data, concepts.config)
    folder = flags.out or Path("unweave-check")
    with (
        progress.show_progress(f"Checking {model}", quiet=flags.quiet) as listener,
        single_file.as_folder(model, concepts.config, folder) as source,
    ):
        plan = None
        if data is not None:
            work = concept_work.read(str(source), concepts, trained, data, flags.device)
        elif generation.generate is None:
            work = read_prompts(str(source), concepts, trained, generation)
        else:
            plan = plan_drawing(str(source), concepts, trained, generation, flags.seed or 0)
            work = plan.blank_work(flags.device)
        findings = inspect_request(work, plan, configured_methods, listener)
    facts = {**(plan or work).facts(), "verb": "check", "methods": repr(configured_methods)}
    write_findings(findings, facts, flags.out)
    show.print_json(findings) if flags.json else print_findings(model, findings)
    return 0


def choose_methods(methods: str | None, recipe: ConceptRecipe | None) -> tuple[str, ...]:
    """The methods to check: those of the flag, else those of the recipe, else the default of `forget`."""
    if methods == EVERY and recipe is None:
        return tuple(name for name in PRESETS if name not in REFERENCES)
    chosen_names = () if methods == EVERY else parse_names(methods)
    recipe_names = () if recipe is None else tuple(recipe.methods)
    return chosen_names or recipe_names or TextToImageFamily.usual_methods


def inspect_request(
    work: ConceptWork, plan: DrawingPlan | None, methods: Mapping[str, Method], listener: Listener
) -> dict[str, Any]:
    """All findings about a request, and the plan of its images if the model is to draw them."""
    counts = count_data(work)
    caveats = [] if plan is None else ["no image is drawn yet: all numbers of images are those of the plan"]
    return {
        "model": {**weight_facts(work.model), "type": "Stable Diffusion", "trained": True},
        "concepts": list(work.concepts.concept),
        "scope": work.trained.scope or TEXT_TO_IMAGE,
        "data": counts,
        "notes": [*caveats, *notes(counts)],
        "costs": estimate_costs(work, plan, methods, listener),
    }


def count_data(work: ConceptWork) -> dict[str, int]:
    """The numbers of images in each part, if there are any, and of different captions."""
    split, prompts = work.request.split, work.request.prompts
    forget_ids, retain_ids = ({*split.part(part)[1].tolist()} for part in ("forget", "retain"))
    labels = split.train.labels
    captions = [
        {prompts.texts[label] for label in labels[sorted(ids)].tolist()} for ids in (forget_ids, retain_ids)
    ]
    held_out = split.held_out.labels
    concept = [label in prompts.forgotten for label in held_out.tolist()]
    images = {
        "forget": len(forget_ids),
        "retain": len(retain_ids),
        "held out": len(held_out),
        "held out of the concept": sum(concept),
    }
    return {
        **({} if work.by_prompts else images),
        "captions to forget": len(captions[0]),
        "captions to keep": len(captions[1]),
        "captions of both": len(captions[0] & captions[1]),
        "neighbours": len(neighbours(captions[0], captions[1] - captions[0])),
    }


def neighbours(forget_captions: set[str], retain_captions: set[str]) -> set[str]:
    """The captions to keep that differ in one word from a caption to forget."""
    patterns = {pattern for text in forget_captions for pattern in blank_each_word(text)}
    return {text for text in retain_captions if not patterns.isdisjoint(blank_each_word(text))}


def blank_each_word(text: str) -> Iterator[tuple[str, ...]]:
    """Yields the words of a text with each of them left blank in turn."""
    words = tuple(text.split())
    return ((*words[:place], "", *words[place + 1 :]) for place in range(len(words)))


def notes_on_audit(counts: Mapping[str, int]) -> Iterator[str]:
    """Yields what an audit with the images of a request lacks."""
    if counts["forget"] < PICTURES:
        yield f"attacks of an audit learn from {PICTURES} images of the concept, found {counts['forget']}"
    if counts["held out"] - counts["held out of the concept"] < FEWEST:
        yield f"a KID of an audit needs {FEWEST} held-out images to keep of each kind that its prompts name"


def notes(counts: Mapping[str, int]) -> Iterator[str]:
    """Yields what makes a request hard, or its audit with the images that it has."""
    if "forget" in counts:
        yield from notes_on_audit(counts)
    if counts["captions of both"]:
        yield (
            f"{counts['captions of both']} captions stand beside images to forget and images to keep: they "
            "do not name the concept, so they stay prompts to keep"
        )
    if not counts["neighbours"]:
        yield "no caption to keep differs in one word from one to forget: damage nearby may go unseen"


def data_sentences(counts: Mapping[str, int], concepts: str) -> Iterator[str]:
    """Yields the sentences on the images, if there are any, and on the captions or prompts."""
    names, neighbours = "Prompts", f"{counts['neighbours']} differ in one word from one to forget."
    if "forget" in counts:
        names, of = "Captions", counts["forget"] + counts["retain"]
        yield f"{concepts}: {counts['forget']} of {of} training images hold it."
        yield f"Held out: {counts['held out']} images, {counts['held out of the concept']} of the concept."
    yield (
        f"{names} to forget: {counts['captions to forget']}. {names} to keep: {counts['captions to keep']}, "
        f"of which {neighbours}"
    )


def print_findings(model: str, findings: Mapping[str, Any]) -> None:
    """Prints the findings."""
    show.print_sentences(usable_line(model, findings["costs"]), "", model_line(findings["model"]))
    show.print_sentences(*data_sentences(findings["data"], ", ".join(map(repr, findings["concepts"]))), "")
    print_notes(findings["notes"])
    print_costs(findings["costs"])

"""`unweave forget`: writes a new model that has forgotten some of its data; never changes the original."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unweave.cli.checks.dry_run import print_plan
from unweave.cli.forget_runs.concept import forget_concept
from unweave.cli.forget_runs.run import Run
from unweave.cli.inputs import out
from unweave.cli.inputs.choose_method import configure_method, read_search, tuned_settings
from unweave.cli.inputs.concept_recipe import learns_from_prompts, read_concept_recipe
from unweave.cli.inputs.concept_source import NO_GENERATION, Generation
from unweave.cli.inputs.concepts import NO_CONCEPT, Concepts, refuse_no_concept, refuse_other_requests
from unweave.cli.inputs.forget_folder import find_folder, remove_states
from unweave.cli.inputs.request import NOTHING, Request, positions
from unweave.cli.inputs.scope import ALL, TrainedWeights
from unweave.cli.options import DEFAULTS, CommonFlags, parse_settings
from unweave.cli.process_group import refuse_other_facts, refuse_unfit_flags
from unweave.cli.project import Project, load
from unweave.cli.terminal.show_result import print_done
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods import method_named
from unweave.methods.unsaved_state import refuse_unsaved_state
from unweave.record import checkpoint
from unweave.record.record import package_digest
from unweave.split import Split
from unweave.tables import merge_tables
from unweave.weights.processes import Processes
from unweave.weights.shard import shard_model


def forget(
    model: str,
    /,
    *,
    request: Request = NOTHING,
    concepts: Concepts = NO_CONCEPT,
    generation: Generation = NO_GENERATION,
    trained: TrainedWeights = ALL,
    method: str | None = None,
    set: tuple[str, ...] = (),
    tuned: Path | None = None,
    recipe: str | None = None,
    data: str | None = None,
    shard: bool = False,
    blocks: str | None = None,
    save_sharded: bool = False,
    save_every: int | None = None,
    pictures: int = 0,
    dry_run: bool = False,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Write a new model that has forgotten some of its data.

    It writes model.safetensors with model.json, record.json, split.json, and forget.json with the request. A
    model from a diffusers folder is also written as a copy of that folder, in the folder pretrained. The
    folder models holds models trained on the way: the original of a recipe, and the classifier that
    recognises a generator's images. You may delete it; audit then trains what it needs again. The original is
    never changed.

    Args:
        model: project.py, a recipe, or a model's folder.
        request: The forget set.
        concepts: The concepts that a text-to-image model forgets.
        generation: The images that it draws itself.
        trained: The weights that the method trains.
        method: A method, or a pipeline such as lur:recover. The default is the headline of a recipe; else
            lur:recover for classifiers and lur-lagged for diffusion models. See unweave methods.
        set: A setting of the method, such as how.lr=0.1, or of a pipeline's stage, such as
            recover.how.lr=0.1; can be given several times.
        tuned: The folder `tuning` of a bench of this model; its settings are the defaults. For a bench at
            several budgets, the file of one of them, such as tuning/digits-trace@0.1.toml.
        recipe: The recipe, if the model's folder has none; for a text-to-image model a recipe of a request,
            such as sd-nudity.
        data: The images for a diffusers folder: a folder with one sub-folder per class, or an .npz file;
            for a text-to-image model a folder with captions, in metadata.jsonl or metadata.csv.
        shard: Under torchrun, cut the model over the processes (FSDP2); otherwise each holds all of it.
        blocks: With --shard, a pattern for the names of the modules that are gathered one at a time; by
            default the model's own repeated layers.
        save_sharded: With --shard, each process writes its rows of the model into the folder sharded, a
            checkpoint of torch.distributed.checkpoint, and none writes model.safetensors, which audit needs.
        save_every: The number of steps between two saved states; the same command then resumes an interrupted
            run. By default none is saved.
        pictures: For a concept: the number of images (at most 6) to draw of each of four prompts, by the
            model before and after and from the same noise, into pictures.png and the report.
        dry_run: Only print what forget would do, and its cost; for that of a concept see check.
        flags: The flags of every verb.
    """
    tables, concept_recipe = parse_settings(set), read_concept_recipe(recipe, model)
    if method is not None:
        method_named(method)
    concept_method = method or TextToImageFamily.usual_methods[0]
    if concept_recipe is not None:
        keeps = data is None or learns_from_prompts(concept_method)
        concepts, trained = concept_recipe.concepts(concepts, keeps=keeps), concept_recipe.trained(trained)
        generation = concept_recipe.generation(generation, data, concepts.concept)
        tables, recipe = concept_recipe.settings(concept_method, tables), None
    if save_sharded and not shard:
        raise ValueError("--save-sharded goes with --shard, found it alone: add --shard")
    refuse_unfit_flags(shard=shard, blocks=blocks, save_every=save_every, concept=bool(concepts.concept))
    if concepts.concept:
        refuse_other_requests(request, tuned, recipe)
        return forget_concept(
            model,
            concepts,
            trained,
            method=concept_method,
            tables=tables,
            data=data,
            generation=generation,
            pictures=pictures,
            dry_run=dry_run,
            flags=flags,
        )
    refuse_no_concept(model, concepts, generation, pictures=pictures)
    return forget_records(
        model,
        request,
        trained,
        method=method,
        tables=tables,
        tuned=tuned,
        recipe=recipe,
        data=data,
        place_model=lambda original: shard_model(original, blocks) if shard else original,
        save_sharded=save_sharded,
        save_every=save_every,
        dry_run=dry_run,
        flags=flags,
    )


def forget_records(
    model: str,
    request: Request,
    trained: TrainedWeights,
    *,
    method: str | None,
    tables: Mapping[str, Any],
    tuned: Path | None,
    recipe: str | None,
    data: str | None,
    place_model: Callable[[nn.Module], nn.Module],
    save_sharded: bool,
    save_every: int | None,
    dry_run: bool,
    flags: CommonFlags,
) -> int:
    """Writes a model that has forgotten records or a class; does nothing if the folder holds it already."""
    processes, seed = Processes.current(), flags.seed or 0
    if tuned is not None and method is not None:
        read_search(tuned, model, method)  # its errors come before the data is read
    project = load(model, recipe=recipe, data=data, device=flags.device)
    method = method or project.default_method
    method_named(method, project.family.name)
    split = project.split(positions(request, project, seed))
    if tuned is not None:
        tables = merge_tables(tuned_settings(project, method, model=model, tuning=tuned, seed=seed), tables)
    configured_method = configure_method(project, method, tables=tables, seed=seed, trained=trained)
    project.refuse_undrawable_method(configured_method, method)
    if save_every is not None:
        refuse_unsaved_state(configured_method, method)
    run_facts = {
        **place_facts(model, recipe, data),
        **request_facts(project, split, method, tables=tables, seed=seed, device=flags.device),
        **trained.facts(),
        # a whole model has no such fact, as in earlier versions
        **({"save_sharded": True} if save_sharded else {}),
    }
    place = flags.out or Path("forgotten")
    out.refuse_within(place, project.source, data)
    refuse_other_facts(run_facts)
    folder, is_finished = processes.from_first(
        lambda: find_folder(place, run_facts, project, sharded=save_sharded)
    )
    if is_finished:
        processes.from_first(lambda: remove_states(folder))
        print_done(split, method, folder=folder, flags=flags)
        return 0
    if dry_run:
        return processes.from_first(  # alone: a clock decides how long it measures
            lambda: print_plan(
                configured_method,
                method,
                split=split,
                project=project,
                folder=folder,
                trained=trained,
                flags=flags,
            )
        )
    run = Run(
        project, split, configured_method, method, model, request, folder, save_every, flags, save_sharded
    )
    run.write_result(run_facts, place_model)
    return 0


def place_facts(model: str, recipe: str | None, data: str | None) -> out.Facts:
    """The places that a run reads."""
    places = {"model": model, "recipe": recipe, "data": data}
    absolute_places = {key: None if place is None else absolute_place(place) for key, place in places.items()}
    return {"verb": "forget", **absolute_places}


def request_facts(
    project: Project, split: Split, method: str, *, tables: Mapping[str, Any], seed: int, device: str | None
) -> out.Facts:
    """The facts that a run depends on, without the place of its model."""
    weights = None if project.model is None else checkpoint.contents(project.model.state_dict())
    return {
        "facts": project.facts,
        "original": weights,
        "split": split.digest(),
        "code": package_digest(),
        "method": method,
        "settings": tables,
        "seed": seed,
        "device": device,
        "forget": forgotten_ids(split),
    }


def forgotten_ids(split: Split) -> list[str] | list[int]:
    """The ids of the forget set, or its positions."""
    places = split.forget.tolist()
    return places if split.train.names is None else [split.train.names[int(place)] for place in places]


def absolute_place(place: str) -> str:
    """The absolute path of a place; the name of a recipe of the package stays unchanged."""
    return str(Path(place).resolve()) if Path(place).exists() else place

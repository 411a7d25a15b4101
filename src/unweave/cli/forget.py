"""`unweave forget`: writes a new model that has forgotten some of its data; never changes the original."""

from pathlib import Path

from unweave.cli.forget_runs.concept import forget_concept
from unweave.cli.forget_runs.records import forget_records
from unweave.cli.inputs.concept_recipe import learns_from_prompts, needs_images, read_concept_recipe
from unweave.cli.inputs.concept_source import NO_GENERATION, Generation
from unweave.cli.inputs.concepts import NO_CONCEPT, Concepts, refuse_no_concept, refuse_other_requests
from unweave.cli.inputs.request import NOTHING, Request
from unweave.cli.inputs.scope import ALL, TrainedWeights
from unweave.cli.options import DEFAULTS, CommonFlags, parse_settings
from unweave.cli.process_group import refuse_unfit_flags
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods import method_named
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
        pictures: For a concept: the number of images (at most 6) to draw of each of four prompts (two for
            each concept if there are more than two), by the model before and after and from the same noise,
            into pictures.png and the report.
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
        generation = concept_recipe.generation(
            generation, data, concepts.concept, needs_images=needs_images(concept_method)
        )
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

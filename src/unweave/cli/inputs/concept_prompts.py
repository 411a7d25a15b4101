"""A request to erase concepts by their prompts: for a method that needs no images, and for images to draw.

Needs the extra `unweave[diffusion]`.
"""

from pathlib import Path

from unweave.cli.inputs.concept_source import Generation
from unweave.cli.inputs.concept_work import ConceptWork, erasure_of, load_model
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.scope import TrainedWeights
from unweave.tasks.diffusion.concept_request import make_prompt_request
from unweave.tasks.diffusion.drawn_folder import prompts_of
from unweave.tasks.diffusion.stable_diffusion import load, refuse_other_pipeline


def read_prompts(
    model: str, concepts: Concepts, trained: TrainedWeights, generation: Generation
) -> ConceptWork:
    """Reads a pipeline for a method that needs no images; it reads the concepts, and the prompts to keep.

    Raises:
        ValueError: If the pipeline or the request can't be used, or there is nothing to keep.
    """
    _, keep_prompts = prompts_of_request(concepts, generation)
    refuse_other_pipeline(Path(model))
    pipeline = load(model)
    request = make_prompt_request(pipeline, keep_prompts, erasure_of(concepts))
    original = load_model(pipeline, request.prompts, trained)
    return ConceptWork(concepts, trained, pipeline, request, original, by_prompts=True)


def prompts_of_request(concepts: Concepts, generation: Generation) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompts of the concepts, and the prompts to keep, without images of the user.

    Raises:
        ValueError: If concepts are found by more than their words, or there is nothing to keep.
    """
    if concepts.column is not None or concepts.captions is not None:
        raise ValueError("--column and --captions go with --data: without its images there are prompts alone")
    erasure_of(concepts)
    forget_prompts, keep_prompts = prompts_of(concepts.concept, generation.all_prompts(), concepts.keep)
    if not keep_prompts:
        raise ValueError(
            "a request without --data needs prompts to keep, without the words of a concept: name them with "
            "--keep or --prompts"
        )
    return forget_prompts, keep_prompts

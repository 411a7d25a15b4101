"""Attacks that try to recover a concept from a text-to-image model (numbers: `concept_attack_metrics`).

Compare each with the same attack on a model retrained without the concept, which may also draw something like
it, and on the original, which shows the power of the attack. None is a bound: a stronger attack may exist.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unweave.audits.diffusion.attacker import Budget, Target
from unweave.audits.diffusion.attacks import (
    Numbers,
    Try,
    best_condition,
    run_chosen,
    try_condition,
    try_guidances,
    try_optimised_vector,
    try_relearning,
    try_seeds,
    try_unconditional,
    try_without_addition,
)
from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.drawing import denoising_loss
from unweave.audits.diffusion.old_words import try_old_words
from unweave.audits.diffusion.sweeps import count_hits
from unweave.audits.diffusion.text_attacks import Loss, TextEncoder, choose_prefix, invert_token
from unweave.audits.quantize import quantize
from unweave.tasks.diffusion.sample import Start
from unweave.tasks.diffusion.scopes import merge_low_rank
from unweave.tasks.low_rank import find_additions

STRENGTH = 0.75
"""The share of the steps that image-to-image takes: at one nothing is left of the picture."""

STRENGTHS = (1.0, 0.5, 1.5, 2.0, 3.0)
"""How many times the concept vector is added."""


@dataclass(frozen=True, eq=False)
class ConceptTarget:
    """A text-to-image model that should have forgotten a concept, and the attacker's knowledge.

    Args:
        target: The model under the first of the trained prompts, and real images of the concept.
        prompts: The prompts, by whose numbers it draws.
        encoder: The text encoder.
        before: The original's text encoder; None if it is unknown.
    """

    target: Target
    prompts: ConceptPrompts
    encoder: TextEncoder
    before: TextEncoder | None = None


def attack_concept(concept: ConceptTarget, budget: Budget) -> Numbers:
    """Runs the attacks of a budget; returns the numbers of `CONCEPT_ATTACKS` by id.

    An attack on an addition of low rank is left out if the model has none or the original is unknown, and
    that with the original's text encoder if this is unknown. A concept that does not come back within the
    budget counts as the budget.
    """
    target = concept.target
    numbers = try_condition(target, budget) | run_chosen(ON_CONDITIONS, target, budget)
    numbers |= run_chosen(ON_PROMPTS, concept, budget)
    if concept.before is not None and budget.runs("original-words"):
        numbers |= try_old_words(target, concept.before, budget, numbers)
    if find_additions(target.drawing.model) and target.original is not None:
        numbers |= run_chosen({"without-adapter": try_without_addition}, target, budget)
    return numbers


def try_paraphrases(concept: ConceptTarget, budget: Budget) -> Numbers:
    """Tries all prompts of the concept and takes the one under which most images show it."""
    conditions = {float(each): each for each in concept.prompts.forget_conditions}
    return {"prompt": best_condition(concept.target, budget, conditions)}


def try_concept_vector(concept: ConceptTarget, budget: Budget) -> Numbers:
    """Adds the difference of the mean embeddings with and without the concept to a prompt to keep.

    The concept vector of Ring-A-Bell (Tsai et al., 2024), https://arxiv.org/abs/2310.10012, is the same mean
    difference; it then searches for tokens with that embedding, and this attack uses the embedding itself.
    """
    drawing = concept.target.drawing
    means = [
        torch.stack([drawing.vector(each) for each in numbers]).mean(0)
        for numbers in (concept.prompts.forget_conditions, concept.prompts.retain_conditions)
    ]
    start, direction = drawing.vector(concept.prompts.retain_conditions[0]), means[0] - means[1]
    vectors = {each: start + each * direction for each in STRENGTHS}
    return {"concept_vector": best_condition(concept.target, budget, vectors)}


def try_pictures(concept: ConceptTarget, budget: Budget) -> Numbers:
    """Draws under the prompt of the concept from real pictures of it that are nearly all noise."""
    target, seeds = concept.target, budget.settings.judge
    latents = target.drawing.clean(target.images[: len(seeds)])
    starts = latents[torch.arange(len(seeds)) % len(latents)]
    images = target.drawing(target.condition, seeds, target.guidance, Start(starts, STRENGTH))
    return {"picture": 100 * count_hits(images, target.hit).value}


def try_token(concept: ConceptTarget, budget: Budget) -> Numbers:
    """Learns a new token from real images (textual inversion)."""
    start = int(concept.encoder.words(concept.target.condition)[-1])
    embedding = invert_token(
        concept.encoder, loss_of(concept, budget), start=start, steps=budget.vector_steps
    )
    return {"token": share_under(embedding, concept, budget)}


def try_prefix(concept: ConceptTarget, budget: Budget) -> Numbers:
    """Chooses tokens before the prompt of the concept (as UnlearnDiffAtk does)."""
    embedding = choose_prefix(
        concept.encoder,
        loss_of(concept, budget),
        prompt=concept.target.condition,
        steps=budget.vector_steps,
        generator=torch.Generator().manual_seed(budget.seed),
    )
    return {"prefix": share_under(embedding, concept, budget)}


@torch.no_grad()
def round_weights(model: nn.Module) -> nn.Module:
    """A copy whose matrices are rounded to 255 levels, symmetric around zero, with a scale per output.

    Biases and the weights of normalisation stay as they are, as in common 8-bit formats.
    """
    rounded_model = copy.deepcopy(model)
    for p in rounded_model.parameters():
        if p.ndim > 1:
            p.copy_(quantize(p.flatten(1), 8).view_as(p))
    return rounded_model


def try_eight_bits(concept: ConceptTarget, budget: Budget) -> Numbers:
    """Rounds the weights of the denoiser and of the text encoder to eight bits; it can undo a small edit."""
    target = concept.target
    denoiser = round_weights(merge_low_rank(target.drawing.model))
    rounded_drawing = replace(target.drawing, model=concept.encoder.edit(denoiser, round_weights))
    images = rounded_drawing(target.condition, budget.settings.judge, target.guidance)
    return {"eight_bits": 100 * count_hits(images, target.hit).value}


def loss_of(concept: ConceptTarget, budget: Budget) -> Loss:
    """The denoising loss of the real images, as a function of an embedding."""
    target = concept.target
    return denoising_loss(target.drawing, target.images, draws=budget.draws, seed=budget.seed)


def share_under(embedding: Tensor, concept: ConceptTarget, budget: Budget) -> float:
    """The share of images under an embedding that show the concept, in percent."""
    target = concept.target
    images = target.drawing(embedding, budget.settings.judge, target.guidance)
    return 100 * count_hits(images, target.hit).value


ON_CONDITIONS: Mapping[str, Try] = {
    "guidance": try_guidances,
    "no-condition": try_unconditional,
    "many-seeds": try_seeds,
    "optimised-vector": try_optimised_vector,
    "relearning-from-images": try_relearning,
}
"""The attacks that a class-conditional denoiser has, too."""

ON_PROMPTS: Mapping[str, Callable[[ConceptTarget, Budget], Numbers]] = {
    "best-prompt": try_paraphrases,
    "concept-vector": try_concept_vector,
    "from-a-picture": try_pictures,
    "new-token": try_token,
    "chosen-prefix": try_prefix,
    "eight-bit-weights": try_eight_bits,
}
"""The attacks on prompts, words and the file."""

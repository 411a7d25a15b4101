"""An attack with the original's text encoder: whoever kept it puts it back into an edited pipeline.

An edit of the text encoder alone, such as new embeddings for the words of a concept, hides the concept from
everybody without the old file. Where the text encoder was not edited, this equals no attack.
"""

from dataclasses import replace

import torch

from unweave.audits.diffusion.attacker import Budget, Target
from unweave.audits.diffusion.attacks import Numbers, try_condition, try_relearning
from unweave.audits.diffusion.text_attacks import TextEncoder

NAMES = {"asked": "old_words", "relearn_10": "relearn_10_old_words"}
"""The numbers of this attack, by those of no attack and of relearning."""


def try_old_words(target: Target, encoder: TextEncoder, budget: Budget, numbers: Numbers) -> Numbers:
    """Draws the concept, and learns it again, with the text encoder from before unlearning.

    Args:
        target: The model under its own text encoder.
        encoder: The original's text encoder.
        budget: The attacker's budget.
        numbers: The numbers with its own text encoder; they are returned if that was not edited.
    """
    old_target = with_text_encoder(target, encoder)
    if not same_embeddings(old_target, target):
        numbers = try_condition(old_target, budget) | try_relearning(old_target, budget)
    elif "relearn_10" not in numbers:  # where relearning is no attack of the audit
        numbers = {**numbers, **try_relearning(target, budget)}
    return {name: numbers[key] for key, name in NAMES.items() if key in numbers}


def with_text_encoder(target: Target, encoder: TextEncoder) -> Target:
    """The model under the prompts as another text encoder embeds them."""
    model = encoder.edit(target.drawing.model, lambda same: same)
    return replace(target, drawing=replace(target.drawing, model=model))


def same_embeddings(one: Target, other: Target) -> bool:
    """Whether all prompts have the same embeddings, the empty one included."""
    task = one.drawing.task
    numbers = [*range(task.n_classes), *([] if task.null is None else [task.null])]
    return all(torch.equal(one.drawing.vector(each), other.drawing.vector(each)) for each in numbers)

"""Redraws the embeddings of the tokens of a concept."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.tasks import require_task
from unweave.tasks.diffusion.text_to_image import TextToImage, words_of
from unweave.weights.sharded import cut
from unweave.weights.sharded_model import gather

__all__ = ["ResetTokens"]

TABLE = "token_embedding.weight"
"""The end of the name of the input embeddings in a text encoder."""


@dataclass(frozen=True)
class ResetTokens:
    """Redraws the input embeddings of the tokens of a concept that no prompt to keep holds.

    A model retrained without the concept has never trained them, so they are still as they were drawn. The
    new ones are normal, with mean and deviation of the table. It must come last: a method after it would
    forget under the new embeddings, while the old ones still lead to the concept.
    """

    about: ClassVar[About] = About(
        "ours",
        "the captions of forget and retain; no pixel",
        "no steps",
        "a last stage, for pipelines",
        families=("text-to-image",),
        edits="replaces embeddings",
    )

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If the model has no text encoder to train, or prompts to keep hold every token.
        """
        refuse_family(self, problem.task)
        table = embeddings_of(problem.model)
        tokens = own_tokens(problem)
        with torch.no_grad():
            rows = gather(table).clone()
            noise = torch.randn(len(tokens), table.shape[1], generator=problem.generator, dtype=table.dtype)
            rows[tokens.to(rows.device)] = rows.mean() + rows.std() * noise.to(rows.device)
            table.copy_(cut(rows, table))


def embeddings_of(model: nn.Module) -> nn.Parameter:
    """The input embeddings of a model's text encoder.

    Raises:
        ValueError: If the model has none, because its prompts were encoded once, or they are frozen.
    """
    tables = [p for name, p in model.named_parameters() if name.endswith(TABLE)]
    if not tables:
        raise ValueError(
            "reset-tokens edits the text encoder, and this model holds its prompts encoded: load it with the "
            'scope "text encoder"'
        )
    if not tables[0].requires_grad:
        raise ValueError(
            "reset-tokens edits the text encoder, and its embeddings are frozen: load the model with the "
            'scope "text encoder"'
        )
    return tables[0]


def own_tokens(problem: Problem) -> Int[Tensor, " n"]:
    """The tokens of the concepts that are in no prompt to keep, the empty one included.

    Without named concepts the forgotten prompts are the concepts.

    Raises:
        ValueError: If there are none.
    """
    prompts = require_task(problem.task, TextToImage, "prompts").prompts
    ids = words_of(problem.model).tokens.ids
    forget = {*prompts.forgotten, *prompts.concepts}
    retain = [number for number in range(len(ids)) if number not in forget]
    concepts = sorted(prompts.concepts or prompts.forgotten)
    tokens = sorted({*ids[concepts].flatten().tolist()} - {*ids[retain].flatten().tolist()})
    if not tokens:
        raise ValueError(
            "every word of the concept is in prompts to keep too, so none can be redrawn: use a method that "
            "trains the denoiser"
        )
    return torch.tensor(tokens)

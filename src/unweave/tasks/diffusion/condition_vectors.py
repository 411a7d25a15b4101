"""Vectors instead of class embeddings, or embeddings instead of prompts: other conditions, for attacks."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.tasks.diffusion.text_to_image import TakesPrompts

Condition = Int[Tensor, " batch"] | Float[Tensor, "batch *shape"]
"""A class or prompt for each image, or a vector instead of its embedding."""


class Table(nn.Embedding):
    """Class embeddings that take a vector as well as a class.

    For classes it is torch's `Embedding`, with the same weights under the same name. A model may have
    several, as a transformer has one per block; its vectors are then the concatenation of their rows, and
    each table uses its own range. Your own denoiser takes vectors if its class embedding is a `Table`.

    Args:
        rows: The number of classes, plus one for the null condition.
        width: The length of an embedding.
        start: The start of its range of a vector.
        weight: Its weights, shape `[rows, width]`; fresh ones if None.
    """

    def __init__(self, rows: int, width: int, *, start: int = 0, weight: Tensor | None = None) -> None:
        super().__init__(rows, width, _weight=weight)
        self.start = start

    @classmethod
    def of(cls, embedding: nn.Embedding, *, start: int = 0) -> "Table":
        """A table that replaces torch's embedding, with the same weights."""
        rows, width = embedding.weight.shape
        return cls(rows, width, start=start, weight=embedding.weight)

    def forward(self, input: Condition) -> Float[Tensor, "batch own"]:
        """The rows of classes, or the table's range of vectors."""
        if input.is_floating_point():
            return input[:, self.start : self.start + self.embedding_dim]
        return super().forward(input)


def vectors(model: nn.Module, classes: Int[Tensor, " batch"]) -> Float[Tensor, "batch *shape"]:
    """The embeddings of classes or prompts; the model's outputs for them equal those for the numbers.

    Raises:
        ValueError: If the model takes no vectors.
    """
    if isinstance(model, TakesPrompts):
        return model.words(classes)
    return torch.cat([table(classes) for table in tables(model)], dim=1)


def takes_vectors(model: nn.Module) -> bool:
    """Whether the model accepts a vector instead of a class or a prompt."""
    return isinstance(model, TakesPrompts) or any(isinstance(module, Table) for module in model.modules())


def tables(model: nn.Module) -> list[Table]:
    """The class embeddings of a model, in the order of their ranges.

    Raises:
        ValueError: If there are none.
    """
    embeddings = sorted((m for m in model.modules() if isinstance(m, Table)), key=lambda table: table.start)
    if not embeddings:
        raise ValueError(
            f"{type(model).__name__} takes classes and no vectors: make its class embedding a "
            "unweave.tasks.diffusion.condition_vectors.Table"
        )
    return embeddings


def refuse_other_width(model: nn.Module, vectors: Float[Tensor, "batch *shape"]) -> None:
    """Raises if the model takes no vectors, or vectors of another shape."""
    expected = list(zero_vector(model).shape)
    if list(vectors.shape[1:]) != expected:
        raise ValueError(f"this model takes vectors of shape {expected}, found {list(vectors.shape[1:])}")


def zero_vector(model: nn.Module) -> Float[Tensor, "*shape"]:
    """Zeros in the shape of the embedding of a class or a prompt."""
    if isinstance(model, TakesPrompts):
        device = next(model.parameters()).device
        return torch.zeros_like(model.words(torch.zeros(1, dtype=torch.int64, device=device))[0])
    return torch.zeros(sum(table.embedding_dim for table in tables(model)))

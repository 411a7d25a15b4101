"""Unified Concept Editing, UCE (Gandikota et al., WACV 2024), https://arxiv.org/abs/2308.14761."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.descent.losses import refuse_nonfinite
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range
from unweave.tasks import require_task
from unweave.tasks.diffusion.scopes import PATTERNS
from unweave.tasks.diffusion.text_to_image import TextToImage, Words, words_of


@dataclass(frozen=True)
class UCE:
    r"""Maps the tokens of a concept to those of another prompt, in closed form; it needs no images.

    Each key and value matrix of cross-attention becomes the minimiser of :math:`e \sum_i \|W c_i - W_0
    c'_i\|^2 + p \sum_j \|W c_j - W_0 c_j\|^2 + \lambda \|W - W_0\|^2` (Equation 7), with embeddings
    :math:`c_i` of a concept, :math:`c'_i` of the prompt that replaces it, and :math:`c_j` of what is kept.
    The defaults are those of the release of 2025; the first one has preserve = pull = 0.1 and tokens =
    "rest".

    Args:
        erase: The weight e of the concepts.
        preserve: The weight p of what is kept.
        pull: The weight lambda of the distance from the original matrix.
        keep: What is kept: the prompts that the user named, or these and all retained captions.
        tokens: The embeddings of a concept: that of its last token, or also those of the padding behind it.
            With "rest" all tokens of what is kept are used, as in the first release.
    """

    about: ClassVar[About] = About(
        "Gandikota et al., WACV 2024, arXiv 2308.14761",
        "the prompts of forget and retain; no images",
        "0 gradients: one linear system",
        "without named concepts the prompts of the forget set are the concepts",
        families=("text-to-image",),
        edits="solves for the weights in closed form",
    )

    erase: float = 1.0
    preserve: float = 1.0
    pull: float = 0.5
    keep: Literal["named", "all"] = "all"
    tokens: Literal["last", "rest"] = "last"

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, inf)", "erase", "preserve")
        refuse_outside(self, "(0, inf)", "pull")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"preserve": Log(0.01, 10.0), "pull": Log(0.01, 10.0)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If the model takes no prompts, or its keys and values are frozen.
            Failed: If a weight is not finite.
        """
        refuse_family(self, problem.task)
        weights = keys_and_values(problem)
        old, new, retain = self.embeddings(problem)
        e, p = self.erase**0.5, self.preserve**0.5
        change = closed_form(torch.cat([e * old, p * retain]), torch.cat([e * new, p * retain]), self.pull)
        with torch.no_grad():
            for weight in weights:
                weight.copy_((weight.double() @ change).to(weight))
        refuse_nonfinite(problem.params)

    def embeddings(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        """The embeddings of the concepts, of what replaces them, and of what is kept; [n, feature] each."""
        task, words = require_task(problem.task, TextToImage, "prompts"), words_of(problem.model)
        labels, split = problem.split.train.labels, problem.split
        concepts = task.prompts.concepts or tuple(labels[split.forget].unique().tolist())
        numbers = set(task.prompts.kept)
        if self.keep == "all":
            numbers |= set(labels[split.retain].tolist()) - set(task.forgotten)
        target = task.prompts.null if task.prompts.target is None else task.prompts.target
        pairs = [align_tokens(words, concept, target, self.tokens) for concept in concepts]
        old, new = (torch.cat(each) for each in zip(*pairs, strict=True))
        rows = [tokens_of(words, number)[self.span(words, number)] for number in sorted(numbers)]
        return old, new, torch.cat([old[:0], *rows])

    def span(self, words: Words, number: int) -> slice:
        """The tokens of a kept prompt."""
        position = last_token(words, number)
        return slice(position, position + 1) if self.tokens == "last" else slice(None)


def closed_form(
    old: Float[Tensor, "n feature"], new: Float[Tensor, "n feature"], pull: float
) -> Float[Tensor, "feature feature"]:
    r""":math:`(\lambda I + C'^T C)(\lambda I + C^T C)^{-1}`, by which every matrix is multiplied."""
    damping = pull * torch.eye(old.shape[1], dtype=old.dtype, device=old.device)
    return torch.linalg.solve(damping + old.T @ old, damping + new.T @ old, left=False)


def align_tokens(words: Words, concept: int, target: int, tokens: str) -> tuple[Tensor, Tensor]:
    """The embeddings of two prompts, from their last tokens on, in float64; equally many of each."""
    starts = last_token(words, concept), last_token(words, target)
    old, new = tokens_of(words, concept)[starts[0] :], tokens_of(words, target)[starts[1] :]
    length = 1 if tokens == "last" else min(len(old), len(new))
    return old[:length], new[:length]


def tokens_of(words: Words, number: int) -> Float[Tensor, "token feature"]:
    """The embeddings of a prompt, in float64."""
    place = words.tokens.ids.new_tensor([number])
    return words(place)[0].detach().double()


def last_token(words: Words, number: int) -> int:
    """The place of the last token of a prompt before the closing one; the opening one if it is empty."""
    return int(words.tokens.lengths[number]) - 2


def keys_and_values(problem: Problem) -> list[nn.Parameter]:
    """The matrices to edit.

    Raises:
        ValueError: If the model has none, or they are frozen.
    """
    names = [name for name in problem.params if re.search(PATTERNS["cross-attention keys and values"], name)]
    if not names or any("lora_" in name for name in names):
        raise ValueError(
            "uce edits the keys and values of cross-attention, and none of them is trainable as a whole: use "
            "a scope that holds them, such as 'cross-attention'"
        )
    return [problem.params[name] for name in names]

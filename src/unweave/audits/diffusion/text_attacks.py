"""Attacks through the text encoder: a new token, and tokens before the prompt of the concept.

Textual inversion (Gal et al., 2022), https://arxiv.org/abs/2208.01618, learns the input embedding of one new
token from real images. UnlearnDiffAtk (Zhang et al., 2023), https://arxiv.org/abs/2310.11868, chooses tokens
of the vocabulary. Both minimise the denoising loss of real images of the concept under the prompt. Unlike the
released code of the latter, all times are drawn together, the relaxation of tokens is a softmax with a
straight-through gradient, and the best of all tokens tried is kept.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from unweave.audits.diffusion.conditioning import minimise
from unweave.errors import Failed

Loss = Callable[[Tensor], Float[Tensor, ""]]
"""The denoising loss under an embedding of a prompt, `[token, feature]`."""

PREFIX = 5
"""The number of tokens before the prompt, as in UnlearnDiffAtk."""

RATE = 0.1
"""The learning rate of the input embedding of a token, in units of the vocabulary's root mean square."""

PREFIX_RATE = 0.1
"""The learning rate of the logits of tokens."""


@runtime_checkable
class TextEncoder(Protocol):
    """A text encoder whose input embeddings can be replaced."""

    @property
    def table(self) -> Float[Tensor, "vocabulary width"]:
        """The input embeddings of the vocabulary."""
        ...

    @property
    def special(self) -> tuple[int, ...]:
        """The ids of tokens that are no words: the first and the last of a prompt, and the padding."""
        ...

    def words(self, prompt: int) -> Int[Tensor, " word"]:
        """The tokens of a prompt, without the special ones."""
        ...

    def edit(self, denoiser: nn.Module, by: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """The denoiser under the prompts as an edited copy of the text encoder embeds them."""
        ...

    @property
    def longest(self) -> int:
        """The largest number of tokens of a prompt, without the special ones."""
        ...

    def __call__(self, rows: Float[Tensor, "word width"]) -> Float[Tensor, "token feature"]:
        """The embedding of the prompt whose words have these input embeddings."""
        ...


def invert_token(
    encoder: TextEncoder, loss: Loss, *, start: int, steps: int
) -> Float[Tensor, "token feature"]:
    """Learns a new token; returns the embedding of the prompt that consists of it.

    Args:
        encoder: The text encoder.
        loss: The loss of an embedding.
        start: The token to start at.
        steps: The steps of Adam.
    """
    table = encoder.table
    rate = RATE * float(table.square().mean().sqrt())
    row = minimise(lambda row: loss(encoder(row)), table[start][None], steps=steps, lr=rate)
    with torch.no_grad():
        return encoder(row)


def choose_prefix(
    encoder: TextEncoder, loss: Loss, *, prompt: int, steps: int, generator: torch.Generator
) -> Float[Tensor, "token feature"]:
    """Chooses tokens to put before a prompt; returns the embedding of the whole.

    The number of tokens is `PREFIX`, or less if the encoder takes no longer prompt.

    Args:
        encoder: The text encoder.
        loss: The loss of an embedding.
        prompt: The number of the prompt.
        steps: The steps of Adam.
        generator: Chooses the first tokens.

    Raises:
        ValueError: If the prompt leaves no room for a token, or there is no step.
        Failed: If a loss is NaN or infinite.
    """
    if steps < 1:
        raise ValueError(f"the search for a prefix needs at least one step, found {steps}")
    table, words = encoder.table, encoder.words(prompt)
    room = min(PREFIX, encoder.longest - len(words))
    if room < 1:
        problem = f"found {len(words)} tokens of at most {encoder.longest}"
        raise ValueError(f"a prompt must leave room for a token before it, {problem}: shorten it")
    prompt_rows, penalty = table[words], torch.zeros(len(table), device=table.device)
    penalty[list(encoder.special)] = -torch.inf
    scores = 0.01 * torch.randn(room, len(table), generator=generator)
    scores = scores.to(table.device).requires_grad_()
    optimizer = torch.optim.Adam([scores], PREFIX_RATE)
    best, lowest = prompt_rows, torch.inf
    for _ in range(steps):
        soft = (scores + penalty).softmax(1)
        hard = one_hot(soft.argmax(1), len(table)).to(soft)
        rows = (hard + soft - soft.detach()) @ table  # the value of the hard choice, the gradient of the soft
        value = loss(encoder(torch.cat([rows, prompt_rows])))
        if not value.isfinite():
            raise Failed("NaN: the loss of a prefix is NaN or infinite")
        if value.item() < lowest:
            best, lowest = torch.cat([hard @ table, prompt_rows]), value.item()
        (scores.grad,) = torch.autograd.grad(value, [scores])
        optimizer.step()
    with torch.no_grad():
        return encoder(best)

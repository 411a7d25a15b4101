"""Prompts as conditions: a denoiser `f(x_t, t, condition)` whose condition is the number of a prompt.

A model knows a list of prompts. Their embeddings are computed once, or at every pass if the text encoder is
trained too. The last prompt is the empty one: the null condition. Needs the extra `unweave[diffusion]`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from unweave.tasks.copies import share_frozen
from unweave.tasks.diffusion.text_to_image import Tokens

AT_ONCE = 64
"""The number of prompts encoded together."""

LEGACY = ("vocab.json", "merges.txt")
"""The files of a tokenizer from before transformers 5."""

Condition = Int[Tensor, " batch"] | Float[Tensor, "batch token feature"]
"""The number of a prompt for each image, or embeddings instead of it."""


class Cached(nn.Module):
    """Embeddings that were computed once; they are no weights of the model.

    Args:
        tokens: The prompts.
        embeddings: Their embeddings.
    """

    def __init__(self, tokens: Tokens, embeddings: Float[Tensor, "prompt token feature"]) -> None:
        super().__init__()
        self.tokens = tokens
        self.register_buffer("embeddings", embeddings, persistent=False)

    def forward(self, condition: Int[Tensor, " batch"]) -> Float[Tensor, "batch token feature"]:
        """The embeddings of some prompts."""
        return cast(Tensor, self.embeddings)[condition]


class Encoded(nn.Module):
    """Embeddings that the text encoder computes at every pass, once for each prompt of a batch.

    Args:
        tokens: The prompts.
        text_encoder: The text encoder.
    """

    def __init__(self, tokens: Tokens, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.tokens, self.text_encoder = tokens, text_encoder
        self.register_buffer("ids", tokens.ids, persistent=False)

    def forward(self, condition: Int[Tensor, " batch"]) -> Float[Tensor, "batch token feature"]:
        """The embeddings of some prompts."""
        numbers, place = condition.unique(return_inverse=True)
        return self.text_encoder(cast(Tensor, self.ids)[numbers])[0][place]


class Prompted(nn.Module):
    """A denoiser of latents under prompts.

    Args:
        unet: The denoiser, with the weights and names of diffusers.
        words: The embeddings of the prompts.
    """

    def __init__(self, unet: UNet2DConditionModel, words: Cached | Encoded) -> None:
        super().__init__()
        self.unet, self.words = unet, words

    def forward(
        self, x: Float[Tensor, "batch channel height width"], t: Int[Tensor, " batch"], condition: Condition
    ) -> Float[Tensor, "batch channel height width"]:
        """The prediction for noisy latents at their times under their prompts."""
        embeddings = condition if condition.is_floating_point() else self.words(condition)
        return self.unet(x, t, encoder_hidden_states=embeddings, return_dict=False)[0]

    def editable_copy(self) -> "Prompted":
        """A copy that shares the memory of the frozen weights: a scope trains few of very many."""
        return share_frozen(self)


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str], longest: int) -> Tokens:
    """The tokens of prompts.

    Args:
        tokenizer: The tokenizer.
        prompts: The prompts.
        longest: The number of tokens that the text encoder takes.

    Raises:
        ValueError: If a prompt is longer; the error names it.
    """
    length, padding = min(longest, int(tokenizer.model_max_length)), tokenizer.pad_token_id
    assert isinstance(padding, int)
    ids, lengths = [], []
    for prompt in prompts:
        tokens: list[int] = tokenizer(prompt)["input_ids"]
        if len(tokens) > length:
            raise ValueError(
                f"a prompt must have at most {length} tokens, found {len(tokens)} in {prompt!r}: shorten it"
            )
        ids.append(tokens + [padding] * (length - len(tokens)))
        lengths.append(len(tokens))
    return Tokens(torch.tensor(ids), torch.tensor(lengths))


@torch.no_grad()
def encode_prompts(text_encoder: CLIPTextModel, tokens: Tokens) -> Float[Tensor, "prompt token feature"]:
    """The embeddings of prompts, as the pipelines of diffusers compute them."""
    device = next(text_encoder.parameters()).device
    chunks = [text_encoder(ids.to(device))[0] for ids in tokens.ids.split(AT_ONCE)]
    return torch.cat(chunks)


def read_tokenizer(place: Path) -> CLIPTokenizer:
    """Reads the tokenizer."""
    if not place.is_dir():
        raise ValueError(f"expected the folder {place} of a pipeline, found none")
    if not ((place / "tokenizer.json").exists() or all((place / name).exists() for name in LEGACY)):
        # transformers would make an empty tokenizer of such a folder
        raise ValueError(f"{place} must hold tokenizer.json, or {' and '.join(LEGACY)}; found neither")
    try:
        return CLIPTokenizer.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{place} holds no tokenizer that can be read: {error}") from error

"""CLIP's text encoder with other input embeddings, for attacks. Needs the extra `unweave[diffusion]`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from unweave.tasks.diffusion.prompts import Cached, Prompted, encode_prompts
from unweave.tasks.diffusion.text_to_image import Tokens


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """A text encoder: `unweave.audits.diffusion.text_attacks.TextEncoder`.

    Args:
        model: The text encoder.
        tokenizer: Its tokenizer, of which only the special tokens are used.
        tokens: The tokens of the prompts.
    """

    model: CLIPTextModel
    tokenizer: CLIPTokenizer
    tokens: Tokens

    @property
    def table(self) -> Float[Tensor, "vocabulary width"]:
        """The input embeddings of the vocabulary."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    @property
    def special(self) -> tuple[int, ...]:
        """The ids of tokens that are no words."""
        return tuple(sorted(set(self.tokenizer.all_special_ids)))

    @property
    def longest(self) -> int:
        """The largest number of words."""
        return self.tokens.ids.shape[1] - 2

    def words(self, prompt: int) -> Int[Tensor, " word"]:
        """The tokens of a prompt, without the first, the last and the padding."""
        return self.tokens.ids[prompt, 1 : int(self.tokens.lengths[prompt]) - 1].to(self.table.device)

    def edit(self, denoiser: nn.Module, by: Callable[[nn.Module], nn.Module]) -> Prompted:
        """The denoiser under the prompts as an edited copy of the text encoder embeds them."""
        encoder = by(self.model)
        assert isinstance(denoiser, Prompted) and isinstance(encoder, CLIPTextModel)
        return Prompted(denoiser.unet, Cached(self.tokens, encode_prompts(encoder, self.tokens)))

    def __call__(self, rows: Float[Tensor, "word width"]) -> Float[Tensor, "token feature"]:
        """The embedding of the prompt whose words have these input embeddings."""
        ids, padding = self.tokens.ids, self.tokenizer.pad_token_id
        assert isinstance(padding, int)
        prompt = torch.full_like(ids[:1], padding)
        prompt[0, 0] = ids[0, 0]
        prompt[0, 1 + len(rows)] = ids[0, int(self.tokens.lengths[0]) - 1]
        with replaced_rows(self.model.get_input_embeddings(), rows):
            return self.model(prompt.to(rows.device))[0][0]


@contextmanager
def replaced_rows(embeddings: nn.Module, rows: Tensor) -> Iterator[None]:
    """Replaces the outputs of an embedding at the tokens after the first."""

    def put(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.cat([output[:, :1], rows[None], output[:, 1 + len(rows) :]], dim=1)

    handle = embeddings.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()

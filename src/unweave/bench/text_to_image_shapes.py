"""The sizes of the parts of a small text-to-image model, which each builds with fresh weights."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from unweave.descent.descend import Descent
from unweave.tasks.diffusion.components import Settings, build_text_encoder, build_unet


@dataclass(frozen=True)
class AutoencoderShape:
    """An `AutoencoderKL` without attention.

    Args:
        widths: Channels at each resolution; each is half of the one before.
        latents: Channels of a latent.
        layers: Residual blocks at each resolution.
        groups: Groups of the normalisation.
        absolute: The weight of the mean absolute error (see `Reconstruction`).
        divergence: The weight of the divergence of latents.
        seed: The seed of its training; original and references share one autoencoder.
        train: Its training.
    """

    train: Descent
    widths: tuple[int, ...] = (16, 32)
    latents: int = 4
    layers: int = 1
    groups: int = 8
    absolute: float = 0.3
    divergence: float = 1e-3
    seed: int = 0

    def build(self, size: int) -> AutoencoderKL:
        """Builds it for square images, with fresh weights from torch's global generator."""
        settings: Settings = {
            "sample_size": size,
            "block_out_channels": self.widths,
            "down_block_types": ("DownEncoderBlock2D",) * len(self.widths),
            "up_block_types": ("UpDecoderBlock2D",) * len(self.widths),
            "layers_per_block": self.layers,
            "latent_channels": self.latents,
            "norm_num_groups": self.groups,
            "mid_block_add_attention": False,
        }
        return AutoencoderKL(**settings)

    def latent(self, size: int) -> tuple[int, int, int]:
        """Channels, height and width of a latent of a square image."""
        side = size // 2 ** (len(self.widths) - 1)
        return self.latents, side, side


@dataclass(frozen=True)
class TextShape:
    """A `CLIPTextModel`.

    Args:
        hidden: The width of its embeddings.
        layers: The number of layers.
        heads: Attention heads of a layer.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 4

    def build(self, tokenizer: CLIPTokenizer) -> CLIPTextModel:
        """Builds it for a tokenizer, with fresh weights from torch's global generator.

        The embeddings of tokens start with a deviation of one, not of 0.02: the words differ at once, so the
        denoiser learns what they mean in fewer steps.
        """
        settings: Settings = {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokenizer.model_max_length,
            "hidden_size": self.hidden,
            "intermediate_size": 2 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "projection_dim": self.hidden,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        model = build_text_encoder(settings)
        tokens = model.get_input_embeddings()
        assert isinstance(tokens, nn.Embedding)
        nn.init.normal_(tokens.weight)
        return model


@dataclass(frozen=True)
class DenoiserShape:
    """A `UNet2DConditionModel` with cross-attention at its lowest resolution.

    Args:
        widths: Channels at each resolution.
        layers: Residual blocks at each resolution, on the way down.
        head: The setting `attention_head_dim` of diffusers: attention heads of a block.
        groups: Groups of the normalisation.
    """

    widths: tuple[int, ...] = (32, 64)
    layers: int = 1
    head: int = 4
    groups: int = 8

    def build(self, latent: tuple[int, int, int], text: TextShape) -> UNet2DConditionModel:
        """Builds it with fresh weights from torch's global generator."""
        plain = len(self.widths) - 1
        settings: Settings = {
            "sample_size": latent[1],
            "in_channels": latent[0],
            "out_channels": latent[0],
            "block_out_channels": self.widths,
            "layers_per_block": self.layers,
            "down_block_types": (*("DownBlock2D",) * plain, "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", *("UpBlock2D",) * plain),
            "cross_attention_dim": text.hidden,
            "attention_head_dim": self.head,
            "norm_num_groups": self.groups,
        }
        model = build_unet(settings)
        arrange(model, torch.channels_last)
        return model


def arrange(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Arranges the weights of convolutions in memory, in place: with channels last, a CPU takes less time."""
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=memory_format)

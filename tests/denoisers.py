"""Configurations of tiny denoisers of diffusers, and inputs for them."""

import torch
from torch import Tensor, nn

UNET = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.42.1",
    "sample_size": 4,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "num_class_embeds": 5,
    "dropout": 0.1,
}
DIT = {
    "_class_name": "DiTTransformer2DModel",
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "in_channels": 2,
    "out_channels": 4,
    "num_layers": 2,
    "sample_size": 4,
    "num_embeds_ada_norm": 4,
}
CONFIGS = {"UNet2DModel": UNET, "DiTTransformer2DModel": DIT}


def inputs(model: nn.Module, n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    channels = model.config["in_channels"]
    return torch.randn(n, channels, 4, 4), torch.tensor([0, 500, 999])[:n], torch.tensor([0, 4, 2])[:n]

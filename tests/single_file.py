"""The tiny Stable Diffusion as one file of weights, under the names of CompVis (and of OpenCLIP)."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

State = dict[str, Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
}
"""Of two resolutions with one layer each, as `stable_diffusion.UNET`."""

ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}


def write_single_file(folder: Path, file: Path, *, open_clip: bool = False) -> Path:
    """Writes the weights of a pipeline as one file; returns it."""
    unet, vae, text = (
        load_file(next((folder / part).glob("*.safetensors"))) for part in ("unet", "vae", "text_encoder")
    )
    weights = {f"model.diffusion_model.{unet_name(name)}": value for name, value in unet.items()}
    weights |= {f"first_stage_model.{vae_name(name)}": as_convolution(name, v) for name, v in vae.items()}
    plain = {name.removeprefix("text_model."): value for name, value in text.items()}
    prefix = "cond_stage_model.transformer.text_model."
    weights |= open_clip_text(plain) if open_clip else {f"{prefix}{name}": v for name, v in plain.items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    return file


def unet_name(name: str) -> str:
    old = next(each for each in UNET if name.startswith(f"{each}."))
    suffix = name.removeprefix(old)
    if ".resnets." in name:
        suffix = renamed(suffix, RESNET)
    return UNET[old] + suffix


def vae_name(name: str) -> str:
    if ".mid_block.attentions.0." in name:
        prefix, suffix = name.split(".mid_block.attentions.0.")
        return f"{prefix}.mid.attn_1.{renamed(suffix, ATTENTION)}"
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda match: f"up.{1 - int(match[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda match: f"up.{1 - int(match[1])}.upsample", name)
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def as_convolution(name: str, value: Tensor) -> Tensor:
    """The attention of an autoencoder has convolutions there."""
    linear = ".attentions." in name and value.ndim == 2
    return value[:, :, None, None] if linear else value


def open_clip_text(plain: State) -> State:
    """Names of OpenCLIP, where one matrix holds queries, keys and values."""
    weights = {renamed(name, OPEN_CLIP): value for name, value in plain.items()}
    for name in [each for each in weights if ".q_proj." in each]:
        parts = [weights.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        weights[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    weights["text_projection"] = torch.eye(32)
    return {f"cond_stage_model.model.{name}": value for name, value in weights.items()}


def renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", rf"\g<1>{new}", name)
    return name

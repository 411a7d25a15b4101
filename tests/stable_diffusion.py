"""A Stable Diffusion of a hundred thousand fresh weights, built in memory and written as diffusers does."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
}
VAE = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": 16,
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 4,
}
NUMBERS = ("two", "three", "four")
COLOURS = ("red", "blue")


def tokenizer(length: int = 77) -> CLIPTokenizer:
    """Byte-level, without merges: a word of five letters is five tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    names = [*alphabet, *(f"{each}</w>" for each in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=length)


def text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            max_position_embeddings=77,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            **sizes,
        )
    )


def scheduler(prediction: str = "epsilon") -> Any:
    return diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def write_pipeline(folder: Path, *, prediction: str = "epsilon", seed: int = 0, **unet: object) -> Path:
    """Writes a `StableDiffusionPipeline`; returns its folder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        words = tokenizer()
        pipeline = diffusers.StableDiffusionPipeline(
            vae=diffusers.AutoencoderKL(**VAE),
            text_encoder=text_encoder(words),
            tokenizer=words,
            unet=diffusers.UNet2DConditionModel(**{**UNET, **unet}),
            scheduler=scheduler(prediction),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def write_dit(folder: Path, *, seed: int = 0) -> Path:
    """Writes a `DiTPipeline` over latents of four classes; returns its folder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = diffusers.DiTPipeline(
            diffusers.DiTTransformer2DModel(**DIT), diffusers.AutoencoderKL(**VAE), scheduler()
        )
    pipeline.save_pretrained(folder)
    return folder


def write_clip(folder: Path, *, seed: int = 0) -> Path:
    """Writes a `CLIPModel` of fresh weights with its tokenizer and preparation; returns its folder."""
    words = tokenizer()
    special = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, **special, "vocab_size": len(words), "projection_dim": 8},
        vision_config={**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def write_images(folder: Path, *, each: int = 2, size: int = 16, form: str = "metadata.jsonl") -> Path:
    """Writes images with captions such as "a red three"; returns their folder."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    captions = [f"a {colour} {number}" for number in NUMBERS for colour in COLOURS] * each
    for i, text in enumerate(captions):
        name = f"{i:03}.png"
        Image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8)).save(folder / name)
        rows.append({"file_name": name, "text": text, "number": text.split()[-1]})
    lines = (
        [json.dumps(row) for row in rows]
        if form.endswith("jsonl")
        else [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    )
    (folder / form).write_text("\n".join(lines) + "\n")
    return folder

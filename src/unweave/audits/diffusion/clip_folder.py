"""Reads a CLIP model from a local folder, for the CLIP score. Needs the extra `unweave[diffusion]`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from unweave.audits.diffusion.clip_score import ClipScore
from unweave.record.files import sha256
from unweave.tasks.diffusion.components import Settings, read_component
from unweave.tasks.diffusion.prompts import read_tokenizer, tokenize

MODEL, PREPARATION = "model.safetensors", "preprocessor_config.json"
BATCH = 32
"""The number of images of one pass."""

BLANK = 512
"""The side in pixels of the image that tries a preparation: that of Stable Diffusion's images."""


BAD_SETTINGS = (OSError, ValueError, TypeError, AttributeError, KeyError)
"""The errors of transformers at bad settings; it has none of its own."""


@dataclass(frozen=True, eq=False)
class ClipFolder:
    """A CLIP model with its tokenizer and its preparation of images.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prepare: Resizes, crops and normalises images.
    """

    model: CLIPModel
    tokenizer: CLIPTokenizer
    prepare: CLIPImageProcessorPil

    @torch.no_grad()
    def embed_text(self, text: str) -> Float[Tensor, "1 feature"]:
        """The projected embedding of a prompt.

        Raises:
            ValueError: If it is longer than the model takes.
        """
        longest = self.model.text_model.embeddings.position_embedding.num_embeddings
        tokens = tokenize(self.tokenizer, [text], longest)
        ids = tokens.ids[:, : int(tokens.lengths[0])].to(self.model.device)
        return embeddings_in(self.model.get_text_features(ids))

    @torch.no_grad()
    def embed_images(self, images: UInt8[Tensor, "n 3 height width"]) -> Float[Tensor, "n feature"]:
        """The projected embeddings of images."""
        embeddings = []
        for batch in images.split(BATCH):
            model_inputs = self.prepare(images=[image.numpy() for image in batch], return_tensors="pt")
            pixels = model_inputs["pixel_values"].to(self.model.device)
            embeddings.append(embeddings_in(self.model.get_image_features(pixels)))
        return torch.cat(embeddings)


def embeddings_in(output: object) -> Float[Tensor, "n feature"]:
    """The projected embeddings in an output of the model."""
    assert isinstance(output, BaseModelOutputWithPooling) and output.pooler_output is not None
    return output.pooler_output


def read_clip(place: str | Path, *, device: str = "cpu") -> ClipScore:
    """Reads a CLIP model; nothing is downloaded.

    Args:
        place: The folder of a `CLIPModel` of transformers, with its tokenizer and its preparation of images.
        device: The device to run it on.

    Raises:
        ValueError: If a file is missing or can't be read, the folder holds no CLIPModel, or its preparation
            divides by zero or makes images of a size that the model does not take.
    """
    folder = Path(place)
    for name in ("config.json", MODEL, PREPARATION):
        if not (folder / name).is_file():
            raise ValueError(f"expected the folder of a CLIPModel in {folder}, found no {name}")
    model = read_component(folder, build_clip, MODEL)
    nn.Module.to(model, device)  # in place; the model's own method has no types
    tokenizer = read_tokenizer(folder)
    try:
        preparation = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        refuse_lost_images(preparation)
        clip = ClipFolder(model, tokenizer, preparation)
        clip.embed_images(torch.zeros(1, 3, BLANK, BLANK, dtype=torch.uint8))
    except BAD_SETTINGS as error:
        raise ValueError(
            f"--clip {folder} must hold the preparation of its images in {PREPARATION}, found one that can't "
            f"prepare a blank image ({error}): give the file that came with the model"
        ) from error
    return ClipScore(clip.embed_text, clip.embed_images, digest_of_files(folder))


def refuse_lost_images(preparation: CLIPImageProcessorPil) -> None:
    """Raises a ValueError if the numbers of a preparation would make every image NaN, or every one alike."""
    factor, scale, mean = preparation.rescale_factor, preparation.image_std, preparation.image_mean
    if preparation.do_rescale and not 0 < np.float32(factor) < np.inf:
        raise ValueError(f"rescale_factor must be a number above 0, found {factor}")
    if preparation.do_normalize:
        if not all(0 < each < np.inf for each in np.atleast_1d(np.asarray(scale, np.float32))):
            raise ValueError(f"image_std must be numbers above 0, found {scale}")
        if not np.isfinite(np.asarray(mean, np.float32)).all():
            raise ValueError(f"image_mean must be numbers, found {mean}")


def build_clip(settings: Settings) -> CLIPModel:
    """Builds a CLIP model with fresh weights.

    Raises:
        ValueError: If the configuration is of another model.
    """
    if settings.get("model_type") != "clip":
        raise ValueError(
            f"the model must be a CLIPModel (model_type clip), found {settings.get('model_type')!r}"
        )
    return CLIPModel(CLIPConfig.from_dict(settings))


def digest_of_files(folder: Path) -> str:
    """SHA-256 of the weights, and of all files of settings."""
    files = sorted(
        each for each in folder.iterdir() if each.suffix == ".json" or each.name in (MODEL, "merges.txt")
    )
    return hashlib.sha256("".join(f"{each.name}:{sha256(each)}:" for each in files).encode()).hexdigest()

"""Stable Diffusion 1.x and 2.x on disk: reads a local pipeline, and writes an edited copy of it.

Nothing is downloaded, and the source is never changed. Needs the extra `unweave[diffusion]`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from unweave.record.checkpoint import contents as weights_digest
from unweave.record.digest import digest_of
from unweave.tasks.copies import own_trainable, share_all
from unweave.tasks.diffusion.autoencoder import image_shape_of, read_autoencoder
from unweave.tasks.diffusion.components import build_text_encoder, build_unet, read_component
from unweave.tasks.diffusion.file_names import INDEX, PIPELINE, WEIGHTS
from unweave.tasks.diffusion.folder import Edit, refuse_other_file, write_copy
from unweave.tasks.diffusion.folder_config import components, read, schedule_of
from unweave.tasks.diffusion.folder_files import contents
from unweave.tasks.diffusion.manifest import Manifest, Step, manifest_of
from unweave.tasks.diffusion.prompts import (
    Cached,
    Encoded,
    Prompted,
    encode_prompts,
    read_tokenizer,
    tokenize,
)
from unweave.tasks.diffusion.schedule import Schedule
from unweave.tasks.diffusion.scopes import Scope, restrict
from unweave.tasks.diffusion.text_to_image import EMPTY, Prompts, Tokens
from unweave.tasks.diffusion.weights import differ, layout_of, rename_as
from unweave.tasks.low_rank import merge

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""The classes of the components that a pipeline must have."""

FILES: Mapping[str, str] = {"unet": WEIGHTS, "text_encoder": "model.safetensors"}
"""The files of weights of the components that can be edited."""


@dataclass(frozen=True)
class StableDiffusion:
    """A text-to-image pipeline read from a folder; all models are in float32, on the CPU.

    Args:
        unet: The denoiser of latents.
        autoencoder: Converts images to latents and back.
        text_encoder: Makes the embeddings of prompts.
        tokenizer: Makes the tokens of prompts.
        schedule: The noise schedule of its training, and its prediction target.
        shape: Channels, height and width of its latents.
        folder: The folder that it was read from.
        past: The earlier edits by unweave.
    """

    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: Schedule
    shape: tuple[int, int, int]
    folder: Path
    past: tuple[Step, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        return image_shape_of(self.autoencoder, self.shape)

    @property
    def forgotten_concepts(self) -> tuple[str, ...]:
        """The concepts forgotten by earlier edits."""
        return tuple(sorted({name for step in self.past for name in step.forgotten_concepts}))

    @property
    def forgotten_captions(self) -> frozenset[str]:
        """The captions forgotten by earlier edits whose concepts have no words in them."""
        return frozenset(text for step in self.past for text in step.forgotten_captions)

    def digest(self) -> str:
        """SHA-256 of the weights of all its models."""
        models = self.unet, self.autoencoder, self.text_encoder
        return hashlib.sha256(
            "".join(weights_digest(each.state_dict()) for each in models).encode()
        ).hexdigest()

    def facts(self, prompts: Prompts) -> dict[str, object]:
        """The facts that an edit under prompts depends on: all weights, the schedule, and the tokens."""
        ids = self.tokens(prompts).ids
        content = {"texts": prompts.texts, "tokens": ids.tolist()}
        return {"original": self.digest(), "schedule": asdict(self.schedule), "prompts": digest_of(content)}

    def tokens(self, prompts: Prompts) -> Tokens:
        """The tokens of prompts, the empty one last.

        Raises:
            ValueError: If a prompt is too long; the error names it.
        """
        longest = int(self.text_encoder.config.max_position_embeddings)
        return tokenize(self.tokenizer, [*prompts.texts, EMPTY], longest)

    def fresh(self, model: Prompted) -> Prompted:
        """The same architecture under the same prompts, with fresh weights from torch's global generator."""
        words = model.words
        if isinstance(words, Encoded):
            words = Encoded(words.tokens, CLIPTextModel(self.text_encoder.config))
        return Prompted(type(self.unet)(**self.unet.config), words)

    def model(self, prompts: Prompts, scope: Scope = "all", *, rank: int = 8, seed: int = 0) -> Prompted:
        """A copy of the denoiser under prompts, of which the weights of a scope are trainable.

        The frozen weights share the memory of the pipeline's. The text encoder is part of it only for its own
        scope.

        Raises:
            ValueError: If a prompt is too long; the error names it.
        """
        model = self.shared_model(prompts, scope, rank=rank, seed=seed)
        own_trainable(model)
        return model

    def shared_model(
        self, prompts: Prompts, scope: Scope = "all", *, rank: int = 8, seed: int = 0
    ) -> Prompted:
        """The same, but all weights share the memory of the pipeline's: edit a copy, as `unlearn` does."""
        tokens = self.tokens(prompts)
        words: Cached | Encoded = (
            Encoded(tokens, share_all(self.text_encoder))
            if scope == "text encoder"
            else Cached(tokens, encode_prompts(self.text_encoder, tokens))
        )
        model = Prompted(share_all(self.unet), words).eval()
        restrict(model, scope, rank=rank, seed=seed)
        return model

    def drawing_model(self, prompts: Prompts) -> Prompted:
        """The denoiser under prompts, to draw with; it shares the memory of all weights.

        Raises:
            ValueError: If a prompt is too long; the error names it.
        """
        tokens = self.tokens(prompts)
        words = Cached(tokens, encode_prompts(self.text_encoder, tokens))
        return Prompted(share_all(self.unet), words).eval()


def load(folder: str | Path) -> StableDiffusion:
    """Reads a pipeline from a local folder.

    Raises:
        ValueError: If it is another pipeline, a component is missing, unsupported, sharded or truncated, or
            the weights differ from the manifest of an edited model.
    """
    place = Path(folder)
    refuse_other_pipeline(place)
    stored_manifest = manifest_of(place)
    manifest = stored_manifest or Manifest()
    schedule = schedule_of(place, "unet", manifest.schedule)
    with torch.random.fork_rng(devices=[]):
        unet, autoencoder = read_component(place / "unet", build_unet), read_autoencoder(place / "vae")
        text_encoder = read_component(place / "text_encoder", build_text_encoder, FILES["text_encoder"])
    contents(place, "unet")
    if stored_manifest is not None:
        refuse_other_file(place / manifest.component / FILES[manifest.component], manifest.weights_after)
    tokenizer = read_tokenizer(place / "tokenizer")
    refuse_other_text(place, unet, text_encoder, tokenizer)
    history = () if stored_manifest is None else stored_manifest.past
    shape = latent_shape(place, unet, autoencoder)
    return StableDiffusion(unet, autoencoder, text_encoder, tokenizer, schedule, shape, place, history)


def save(source: StableDiffusion, model: Prompted, out: str | Path, facts: Mapping[str, object]) -> Path:
    """Writes a copy of the source folder with new weights of the edited component, and a manifest.

    Low-rank additions are merged. Other files of the component's weights are left out and listed in the
    manifest; all other components are copied byte for byte.

    Args:
        source: The pipeline as it was read.
        model: The edited model.
        out: A folder that does not exist yet, outside of the source.
        facts: Further facts for the manifest, such as `forgotten_concepts`.

    Raises:
        ValueError: If the folder exists or overlaps the source, or not exactly one component has changed.
    """
    edited_model = model.editable_copy()
    merge(edited_model)
    pairs: dict[str, tuple[nn.Module, nn.Module]] = {"unet": (source.unet, edited_model.unet)}
    if isinstance(edited_model.words, Encoded):
        pairs["text_encoder"] = (source.text_encoder, edited_model.words.text_encoder)
    changed_names = [name for name, (before, after) in pairs.items() if differ(before, after)]
    if len(changed_names) != 1:
        raise ValueError(f"one component must have changed, found {' and '.join(changed_names) or 'none'}")
    (component,) = changed_names
    name, state = FILES[component], pairs[component][1].state_dict()
    layout = layout_of(source.folder / component / name)
    files = contents(source.folder, component, name)
    edit = Edit(source.folder, component, name, files, source.past)
    manifest_facts = {"schedule": asdict(source.schedule)}
    return write_copy(edit, rename_as(state, layout), out, manifest_facts | dict(facts))


def refuse_other_pipeline(place: Path) -> None:
    """Raises if a folder holds no pipeline of this kind; reads no weights."""
    if not place.is_dir():
        raise ValueError(f"expected a folder, found none at {place}")
    pipeline = read(place / INDEX).get("_class_name")
    if pipeline != PIPELINE:
        raise ValueError(f"the pipeline in {place} must be a {PIPELINE} (1.x or 2.x), found {pipeline!r}")
    classes = components(place)
    for name, kinds in COMPONENTS.items():
        if classes.get(name) not in kinds:
            raise ValueError(
                f"{name} in {place / INDEX} must be a {' or '.join(kinds)}, found {classes.get(name)!r}"
            )
    scheduler = classes.get("scheduler")
    if scheduler is not None and not hasattr(diffusers, scheduler):
        raise ValueError(f"scheduler in {place / INDEX} must be one of diffusers', found {scheduler!r}")


def latent_shape(place: Path, unet: UNet2DConditionModel, autoencoder: AutoencoderKL) -> tuple[int, int, int]:
    """Channels, height and width of the latents.

    Raises:
        ValueError: If the denoiser takes other channels than the autoencoder makes, as for inpainting.
    """
    size, channels = unet.config["sample_size"], int(unet.config["in_channels"])
    if size is None:
        raise ValueError(
            f"{place / 'unet' / 'config.json'} must have the sample_size of the latents, found none"
        )
    expected = int(autoencoder.config["latent_channels"])
    if channels != expected:
        raise ValueError(
            f"the denoiser in {place} must take the {expected} channels of its autoencoder, found {channels}"
        )
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def refuse_other_text(
    place: Path, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> None:
    """Raises if the text encoder of a pipeline does not fit its tokenizer or its denoiser."""
    width = int(text_encoder.config.hidden_size)
    features = unet.config.get("encoder_hid_dim") or unet.config["cross_attention_dim"]
    if any(each != width for each in (features if isinstance(features, list | tuple) else [features])):
        raise ValueError(
            f"the denoiser in {place} must take the {width} features of its text encoder, found {features}: "
            "take both from one pipeline"
        )
    size, largest = int(text_encoder.config.vocab_size), max(tokenizer.get_vocab().values())
    if largest >= size:
        raise ValueError(
            f"the text encoder in {place} must know all tokens of its tokenizer, found {size} and the token "
            f"{largest}: take both from one pipeline"
        )

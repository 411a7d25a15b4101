"""Trains small text-to-image models from a recipe: originals, and references without a concept.

An original and its references share the tokenizer and the autoencoder; denoiser and text encoder start from
the same fresh weights and see the same training, on all images or on the retain set. Needs the extra
`unweave[diffusion]`.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import UInt8
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from unweave.audits.diffusion.factor_recogniser import FactorRecogniser, fit_recogniser
from unweave.bench.text_to_image_recipe import TextToImageRecipe
from unweave.bench.text_to_image_shapes import arrange
from unweave.data.captioned_drawings import HELD_OUT_TEMPLATES, TEMPLATES
from unweave.data.captions import CaptionedImages, Concept, words_in
from unweave.data.datasets import as_images
from unweave.data.in_memory import Resident
from unweave.data.latents import Latents
from unweave.descent.descend import Descent
from unweave.descent.train import TrainedModel, train_model
from unweave.result import replace_folder
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.diffusion.autoencoder import encode
from unweave.tasks.diffusion.prompts import Encoded, Prompted, tokenize
from unweave.tasks.diffusion.reconstruction import Reconstructing, Reconstruction
from unweave.tasks.diffusion.text_to_image import EMPTY, Prompts, TextToImage, make_task
from unweave.tasks.diffusion.word_tokenizer import make_tokenizer
from unweave.weights.cost import Cost

RECOGNISED_COPIES = 12
"""The number of drawings of each image that the recogniser is trained on."""


@dataclass(frozen=True)
class TextToImageModels:
    """The models of a recipe; each is trained once, and an interrupted training resumes.

    Args:
        recipe: The recipe.
        cache: The folder of trained models; None keeps none.
        device: The device to train on.
    """

    recipe: TextToImageRecipe
    cache: Path | None = None
    device: str = "cpu"

    @cached_property
    def data(self) -> tuple[CaptionedImages, CaptionedImages]:
        """The training images and the held-out images."""
        return self.recipe.drawings.draw()

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """A tokenizer of all words of trained and held-out prompts."""
        drawings, templates = self.recipe.drawings, (*TEMPLATES, *HELD_OUT_TEMPLATES)
        rows = [*drawings.prompts(templates), *drawings.prompts(templates, held_out=True)]
        return make_tokenizer({word for row in rows for word in words_in(row["text"])}, self.recipe.length)

    @cached_property
    def autoencoder(self) -> AutoencoderKL:
        """The autoencoder of original and references, trained on all images."""
        return self.train_autoencoder()

    @cached_property
    def latents(self) -> tuple[Latents, Latents]:
        """The latents of training images and held-out images, under the numbers of their captions."""
        train, held_out = (self._encode(each) for each in self.data)
        return train, held_out

    @cached_property
    def prompts(self) -> Prompts:
        """All captions of the images."""
        return Prompts(tuple(sorted({text for part in self.data for text in part.captions})))

    @property
    def task(self) -> TextToImage:
        """The task of the training."""
        return make_task(self.prompts, self.recipe.schedule, drop=self.recipe.drop)

    @cached_property
    def recogniser(self) -> FactorRecogniser:
        """The recogniser of the drawings, trained on real images in all pairs of object and colour."""
        drawings = replace(self.recipe.drawings, copies=RECOGNISED_COPIES)
        data = drawings.draw_every_pair()
        return fit_recogniser(*data, drawings.names, device=self.device, cache=self.cache)

    def train_autoencoder(self, without: Concept | None = None) -> AutoencoderKL:
        """Trains an autoencoder, and scales the latents of all training images to a deviation of one.

        Args:
            without: The concept whose images it does not see; None if it sees all.
        """
        shape, (train, held_out) = self.recipe.autoencoder, [as_source(each) for each in self.data]
        trained_model = self._train(
            shape.train,
            lambda: Reconstructing(shape.build(self.recipe.drawings.size)),
            Split(train, self._forget(without), held_out),
            without,
            shape.seed,
            task=Reconstruction(self._latent, shape.absolute, shape.divergence),
        )
        assert isinstance(trained_model.model, Reconstructing)
        return scale_latents(trained_model.model.autoencoder, self.data[0].images)

    def split(self, without: Concept | None) -> Split:
        """The latents in four parts; the forget set is every training image that holds the concept.

        Without a concept it does not matter, and is one image.
        """
        train, held_out = self.latents
        return Split(train, self._forget(without), held_out)

    def train(self, seed: int, without: Concept | None = None) -> TrainedModel:
        """Trains denoiser and text encoder as one model.

        Args:
            seed: The seed of the weights and of the order of the data.
            without: The concept of a retrained reference, which sees the retain set alone; None for an
                original.
        """
        return self._train(self.recipe.train, self._build, self.split(without), without, seed, task=self.task)

    def write(self, folder: Path, seed: int, without: Concept | None = None) -> Cost:
        """Trains a model and writes it as a `StableDiffusionPipeline`; returns the cost of its training.

        Raises:
            ValueError: If the folder exists.
        """
        if folder.exists():
            raise ValueError(f"{folder} exists: name a new folder")
        trained_model = self.train(seed, without)
        model = trained_model.model
        assert isinstance(model, Prompted) and isinstance(model.words, Encoded)
        write_pipeline(
            folder,
            unet=model.unet,
            autoencoder=self.autoencoder,
            text_encoder=model.words.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=self.recipe.scheduler(),
        )
        return trained_model.cost

    def _forget(self, without: Concept | None) -> list[int]:
        if without is None:
            return [0]
        return without.holds(self.data[0]).nonzero()[:, 0].tolist()

    @property
    def _latent(self) -> tuple[int, int, int]:
        return self.recipe.autoencoder.latent(self.recipe.drawings.size)

    def _build(self) -> Prompted:
        recipe, texts = self.recipe, [*self.prompts.texts, EMPTY]
        tokens = tokenize(self.tokenizer, texts, recipe.length)
        words = Encoded(tokens, recipe.text_encoder.build(self.tokenizer))
        return Prompted(recipe.denoiser.build(self._latent, recipe.text_encoder), words)

    def _encode(self, data: CaptionedImages) -> Latents:
        labels = torch.tensor([self.prompts.number(text) for text in data.captions])
        return Latents(*encode(self.autoencoder, data.images), labels, data.names)

    def _train(
        self,
        how: Descent,
        build: Callable[[], nn.Module],
        split: Split,
        without: Concept | None,
        seed: int,
        *,
        task: Task,
    ) -> TrainedModel:
        return train_model(
            how,
            build,
            split,
            "mixed" if without is None else "retain",
            seed,
            task=task,
            device=self.device,
            cache=self.cache,
            save_every=self.recipe.save_every,
        )


def as_source(data: CaptionedImages) -> Resident:
    """The images without captions, in [-1, 1]."""
    return as_images(Resident(data.images, torch.zeros(len(data), dtype=torch.int64)))


def scale_latents(
    autoencoder: AutoencoderKL, images: UInt8[Tensor, "n channel height width"]
) -> AutoencoderKL:
    """Sets the scaling factor, in place, so that the mean latents of the images have a deviation of one."""
    autoencoder.register_to_config(scaling_factor=1.0)
    mean, _ = encode(autoencoder, images)
    autoencoder.register_to_config(scaling_factor=float(1 / mean.std()))
    return autoencoder


def write_pipeline(
    folder: Path,
    *,
    unet: UNet2DConditionModel,
    autoencoder: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
) -> None:
    """Writes a pipeline as diffusers does; the folder appears when it is complete."""
    unet = copy.deepcopy(unet)
    arrange(unet, torch.contiguous_format)  # safetensors takes no other
    parts: dict[str, Any] = {
        "vae": autoencoder,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "unet": unet,
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    with no_progress_bar(), replace_folder(folder) as draft_folder:
        pipeline.save_pretrained(draft_folder)


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Shows no progress bar of transformers while the body runs."""
    is_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_enabled:
            logging.enable_progress_bar()

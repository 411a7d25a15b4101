"""A recogniser of several factors: object, colour and style of an image, each with its own error known.

One classifier of real images, with one softmax for each factor. Its penultimate activations are a space for
distances, as those of `recogniser.Recogniser`. It must never be trained on generated images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from unweave.audits.classifier.logits import probabilities
from unweave.audits.diffusion.images import Shape, check_images
from unweave.audits.diffusion.recogniser import BATCH, answers, digest_of, feature_scale
from unweave.audits.score import Share
from unweave.data.captioned_drawings import factor_numbers
from unweave.data.captions import CaptionedImages
from unweave.data.datasets import as_images
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.split import Split
from unweave.tasks.factors import Factors, join_values
from unweave.tasks.models import build

TRAINING = Descent(lr=0.1, batch=128, weight_decay=5e-4, epochs=20, schedule="cosine", warmup=0.15)
"""As for the recogniser of classes, on images that are shifted by up to one pixel."""

SHIFT = 1
"""The largest shift of a training image, in pixels."""

Names = Mapping[str, Sequence[str]]
"""The values of each factor, as `Drawings.names`."""


@dataclass(frozen=True)
class RecognisedImages:
    """The recogniser's view of some images.

    Args:
        logits: Unnormalised scores of the values of each factor, shape `[n, value]`.
        features: The inputs of its last layer, in units of their root mean square on real images.
        names: The values of each factor.
    """

    logits: Mapping[str, Float64[np.ndarray, "n value"]]
    features: Float64[np.ndarray, "n feature"]
    names: Names

    def __len__(self) -> int:
        return len(self.features)

    def values(self, factor: str) -> Int64[np.ndarray, " n"]:
        """The recognised value of a factor in each image, as its place among the names."""
        return self.logits[factor].argmax(axis=1)

    def probability(self, factor: str, value: str) -> Float64[np.ndarray, " n"]:
        """The probability of a value of a factor in each image."""
        place = self.place(factor, value)
        return probabilities(self.logits[factor])[:, place]

    def shows(self, factor: str, value: str) -> Bool[np.ndarray, " n"]:
        """Which images show a value of a factor, such as the object "three"."""
        place = self.place(factor, value)
        return self.values(factor) == place

    def place(self, factor: str, value: str) -> int:
        """The place of a value among the names of its factor.

        Raises:
            ValueError: If the factor or the value is unknown.
        """
        values = self.names.get(factor, ())
        if value not in values:
            raise ValueError(
                f"{value!r} must be a value of the factor {factor!r}: expected one of "
                f"{', '.join(values) or ', '.join(self.names)}"
            )
        return list(values).index(value)


@dataclass(frozen=True, eq=False)
class FactorRecogniser:
    """A classifier of real images with several factors.

    Args:
        model: Maps normalised images [batch, channel, height, width] to the logits of all factors.
        names: The values of each factor, in the order of its logits.
        shape: Channels, height and width of its training images.
        mean: The mean of each channel, in units of the full range.
        std: The standard deviation of each channel.
        scale: Root mean square of the features on its training images.
        errors: The share of real held-out images in which it takes a factor for another value.
        batch: The number of images of one pass.
    """

    model: nn.Module
    names: Names
    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    errors: Mapping[str, Share]
    batch: int = BATCH

    def recognise(self, images: Tensor) -> RecognisedImages:
        """Its view of uint8 images [n, channel, height, width]; the model stays unchanged."""
        inputs = check_images(images, self.shape)
        logits, features = answers(self.model, inputs, self.mean, self.std, batch=self.batch)
        return RecognisedImages(split_logits(logits, self.names), features / self.scale, self.names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the architecture, the weights, the names and the normalisation."""
        names = {factor: tuple(values) for factor, values in self.names.items()}
        return digest_of(self.model, names, self.shape, self.mean, self.std, self.scale)

    @property
    def facts(self) -> dict[str, Any]:
        """Its digest, and its errors on held-out images with their intervals, in percent."""
        errors = {
            factor: {"value": 100 * each.value, "low": 100 * each.low, "high": 100 * each.high}
            for factor, each in self.errors.items()
        }
        return {"digest": self.digest, "wrong about held-out images, %": errors}

    @property
    def space(self) -> str:
        """The name of the space of its features: twelve hexadecimal digits."""
        return self.digest[:12]


def fit_recogniser(
    train: CaptionedImages,
    held_out: CaptionedImages,
    names: Names,
    *,
    how: Descent = TRAINING,
    width: int = 32,
    hidden: int = 128,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
) -> FactorRecogniser:
    """Trains a recogniser on real images, or reads it from the cache.

    Args:
        train: Square images with a column for each factor, in all combinations that are to be recognised
            (see `Drawings.draw_every_pair`).
        held_out: Held-out images; its errors are counted on all of them.
        names: The values of each factor, as `Drawings.names`.
        how: The training.
        width: Channels after the first convolution (see `models.conv`).
        hidden: The width of the hidden layer.
        seed: The seed of its weights and of the order of the data.
        device: The device to train on.
        cache: The folder that stores it, by the digest of all it depends on; None stores nothing.
    """
    sources = [label_images(each, names) for each in (train, held_out)]
    channels, size, _ = check_images(train.images).shape[1:]
    task = Factors(tuple(len(values) for values in names.values()))
    settings = {"channels": channels, "size": size, "width": width, "hidden": hidden}
    train_source = replace(sources[0], crop=SHIFT).to(device)
    split = Split(train_source, [0], sources[1].to(device))  # the forget set does not matter here
    make = partial(build, "conv", sum(task.sizes), settings)
    result = train_model(how, make, split, "mixed", seed, task=task, device=device, cache=cache)
    return make_recogniser(result.model, sources[0], held_out, names)


def make_recogniser(
    model: nn.Module, train: Resident, held_out: CaptionedImages, names: Names, *, batch: int = BATCH
) -> FactorRecogniser:
    """Makes a recogniser of a trained model, and counts its errors on held-out images."""
    images = check_images(train.inputs)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    scale = feature_scale(model, images, train.mean, train.std, batch=batch)
    logits, _ = answers(model, check_images(held_out.images, shape), train.mean, train.std, batch=batch)
    outputs, truth = split_logits(logits, names), factor_numbers(held_out, names)
    errors = {
        factor: Share(int((outputs[factor].argmax(axis=1) != truth[factor].numpy()).sum()), len(held_out))
        for factor in names
    }
    return FactorRecogniser(model, names, shape, train.mean, train.std, scale, errors, batch)


def label_images(data: CaptionedImages, names: Names) -> Resident:
    """The images in [-1, 1], with one label for the values of all factors."""
    values = list(factor_numbers(data, names).values())
    return as_images(Resident(data.images, join_values(values, [len(each) for each in names.values()])))


def split_logits(
    logits: Float64[np.ndarray, "n logit"], names: Names
) -> dict[str, Float64[np.ndarray, "n value"]]:
    """The logits of each factor."""
    ends = np.cumsum([len(values) for values in names.values()])[:-1]
    return dict(zip(names, np.split(logits, ends, axis=1), strict=True))

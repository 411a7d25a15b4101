"""The recogniser: a classifier of generated images, trained on real images, with its own error known.

Its penultimate activations are the space in which sets of images are compared. A distance there is no FID:
its name contains the digest of the classifier, and all models of a comparison use one classifier. It must
never be trained on generated images.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from unweave.audits.classifier.probes import last_input
from unweave.audits.diffusion.images import Images, Shape, check_images
from unweave.audits.score import Share
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.split import Split
from unweave.tasks import call, evaluating
from unweave.tasks.models import build

BATCH = 1024

TRAINING = Descent(lr=0.1, weight_decay=5e-4, epochs=30, schedule="cosine", warmup=0.15)
"""As for the classifiers of the digits recipes: 0.4 s on one core, 2.2 % error on 360 held-out digits."""


@dataclass(frozen=True)
class SeenImages:
    """The recogniser's view of some images.

    Args:
        logits: Unnormalised scores.
        features: The inputs of its last layer, in units of their root mean square on real images.
    """

    logits: Float64[np.ndarray, "n class"]
    features: Float64[np.ndarray, "n feature"]

    @property
    def classes(self) -> Int64[np.ndarray, " n"]:
        """The recognised class of each image."""
        return self.logits.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Recogniser:
    """A classifier of real images.

    Args:
        model: Maps normalised images [batch, channel, height, width] to logits [batch, class].
        shape: Channels, height and width of its training images.
        mean: The mean of each channel, in units of the full range (see `Resident`).
        std: The standard deviation of each channel.
        scale: Root mean square of the features on its training images. The kernel of a KID depends on the
            scale of its space; features divided by this have the same scale for every recogniser.
        confusion: The number of real held-out images of each class (row) by recognised class (column).
    """

    model: nn.Module
    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    confusion: Int64[np.ndarray, "class class"]

    def __call__(self, images: Tensor) -> SeenImages:
        """Its view of uint8 images [n, channel, height, width]; the model stays unchanged."""
        logits, features = answers(self.model, check_images(images, self.shape), self.mean, self.std)
        return SeenImages(logits, features / self.scale)

    @property
    def error(self) -> Share:
        """The share of real held-out images that it misclassifies."""
        n = int(self.confusion.sum())
        return Share(n - int(self.confusion.trace()), n)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the architecture, the weights and the normalisation."""
        return digest_of(self.model, self.shape, self.mean, self.std, self.scale)

    @property
    def space(self) -> str:
        """The name of the space of its features: twelve hexadecimal digits."""
        return self.digest[:12]


def train_recogniser(
    train: Resident,
    held_out: Resident,
    *,
    model: str = "conv",
    how: Descent = TRAINING,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
) -> Recogniser:
    """Trains a classifier on real images, or reads it from the cache.

    Args:
        train: uint8 images with their classes.
        held_out: Held-out images with their classes; its error is counted on all of them.
        model: "conv" for grey or coloured squares of any size, or another entry of `MODELS` for images.
        how: The training.
        seed: The seed of its weights and of the order of the data.
        device: The device to train on.
        cache: The folder that stores it, by the digest of all it depends on; None stores nothing.
    """
    channels, height, _ = check_images(train.inputs).shape[1:]
    settings = {"channels": channels} | ({"size": height} if model == "conv" else {})
    split = Split(train.to(device), [0], held_out.to(device))  # the forget set does not matter here
    make = partial(build, model, split.n_classes, settings)
    classifier = train_model(how, make, split, "mixed", seed, device=device, cache=cache)
    return make_recogniser(classifier.model, train, held_out)


def make_recogniser(model: nn.Module, train: Resident, held_out: Resident) -> Recogniser:
    """Makes a recogniser of any classifier of images.

    Args:
        model: A classifier trained on `train` with its normalisation.
        train: uint8 images with their classes.
        held_out: Held-out images with their classes.

    Raises:
        ValueError: If its features of the training images are zero or not finite.
    """
    images = check_images(train.inputs)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    logits, _ = answers(model, check_images(held_out.inputs, shape), train.mean, train.std)
    confusion = np.zeros((logits.shape[1],) * 2, dtype=np.int64)
    np.add.at(confusion, (held_out.labels.numpy(), logits.argmax(axis=1)), 1)
    scale = feature_scale(model, images, train.mean, train.std)
    return Recogniser(model, shape, train.mean, train.std, scale, confusion)


def feature_scale(
    model: nn.Module,
    images: Images,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    batch: int = BATCH,
) -> float:
    """The root mean square of a classifier's features of images.

    Raises:
        ValueError: If it is zero or not finite.
    """
    _, features = answers(model, images, mean, std, batch=batch)
    scale = float(np.sqrt(np.square(features).mean()))
    if not scale > 0:
        raise ValueError(
            f"the classifier must find features in the training images, found a root mean square of {scale}: "
            "are they all of one colour?"
        )
    return scale


def digest_of(model: nn.Module, *facts: object) -> str:
    """SHA-256 of an architecture, its weights and facts about it."""
    digest = hashlib.sha256(repr((model, *facts)).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{list(value.shape)}:".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def answers(
    model: nn.Module,
    images: Images,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    batch: int = BATCH,
) -> tuple[Float64[np.ndarray, "n class"], Float64[np.ndarray, "n feature"]]:
    """The logits of images, and their features: the inputs of the last layer."""
    device = next(model.parameters()).device
    source = Resident(images.to(device), torch.zeros(len(images), dtype=torch.int64), mean, std)
    logits, features = [], []
    with evaluating(model), last_input(model) as record, torch.no_grad():
        for raw in source.stream(torch.arange(len(images)).split(batch)):
            assert isinstance(raw.inputs, tuple)
            logits.append(call(model, raw.inputs).double().cpu())
            features.append(record[-1].flatten(1).double().cpu())
    return torch.cat(logits).numpy(), torch.cat(features).numpy()

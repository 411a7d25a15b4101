"""Generators for tests: samples that are drawn, and one that answers with real digits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits

from unweave.audits.diffusion.recogniser import Recogniser, train_recogniser
from unweave.audits.diffusion.samples import Samples
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent

CLASSES, WIDTH = 4, 6
CENTRES = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
SIZES = {"forget": 100, "retain": 300, "attack": 50}
"""Images of each part."""
RETRAINED = (0.05, 0.5, 0.25, 0.2)
"""What a retrained generator makes of condition 0, per class."""


def features_of(classes: np.ndarray, rng: np.random.Generator, blur: float = 0.5) -> np.ndarray:
    return CENTRES[classes] + blur * rng.normal(size=(len(classes), WIDTH))


def answers_of(classes: np.ndarray) -> np.ndarray:
    return 6.0 * np.eye(CLASSES)[classes]


def samples(
    seed: int,
    turns: Sequence[float] = RETRAINED,
    *,
    n: int = 100,
    wrong: float = 0.02,
    blur: float = 0.5,
    forgotten: tuple[int, ...] = (0,),
) -> Samples:
    """Images of four conditions.

    Args:
        seed: Draws them.
        turns: What forgotten conditions turn into, per class.
        n: Images per condition.
        wrong: Share of the images of retained conditions that show another class.
        blur: Spread of the features around the centre of their class; real images have 0.5.
        forgotten: Conditions that are to be forgotten.
    """
    rng, real_rng = np.random.default_rng(seed), np.random.default_rng(99)
    classes_shown = {}
    for condition in range(CLASSES):
        is_wrong = rng.random(n) < wrong
        classes_shown[condition] = np.where(is_wrong, (condition + 1) % CLASSES, condition)
        if condition in forgotten:
            classes_shown[condition] = rng.choice(CLASSES, size=n, p=turns)
    return Samples(
        logits={condition: answers_of(classes) for condition, classes in classes_shown.items()},
        features={condition: features_of(classes, rng, blur) for condition, classes in classes_shown.items()},
        real={label: features_of(np.full(n, label), real_rng) for label in range(CLASSES)},
        forgotten=forgotten,
        space="0123456789ab",
    )


def digits() -> tuple[Resident, Resident]:
    """scikit-learn's digits as bytes [n, 1, 8, 8]: 1,437 to train on and 360 held out."""
    levels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy((levels * 255 / 16).round().astype(np.uint8)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(classes).long()
    held_out = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)) < 360
    mean, std = (float(each) / 255 for each in torch.std_mean(images[~held_out].double())[::-1])
    train, test = (Resident(images[part], labels[part], (mean,), (std,)) for part in (~held_out, held_out))
    return train, test


HOW = Descent(lr=0.1, weight_decay=5e-4, epochs=10, schedule="cosine", warmup=0.15)


@cache
def digits_recogniser() -> Recogniser:
    """One for all tests of a process."""
    return train_recogniser(*digits(), how=HOW)


ANGLES = torch.arange(10) * (2 * torch.pi / 10)
EMBEDDINGS = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
"""One per digit, on a circle."""


@dataclass(frozen=True, eq=False)
class Toy:
    """Answers a condition with a real digit of the class whose embedding is nearest to its vector.

    Args:
        hidden: The vector in the place of some class's own.
        shows: Whether a seed at a guidance shows the class that was asked for by its number; if not, a zero.
    """

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    shows: Callable[[int, float], bool] = lambda seed, guidance: True

    def __call__(self, condition: int | torch.Tensor, seeds: Sequence[int], guidance: float) -> torch.Tensor:
        if isinstance(condition, torch.Tensor):
            classes = [self.nearest(condition)] * len(seeds)
        else:
            digit = self.nearest(self.hidden.get(condition, EMBEDDINGS[condition]))
            classes = [digit if self.shows(seed, guidance) else 0 for seed in seeds]
        return torch.stack([one_of(label, seed) for label, seed in zip(classes, seeds, strict=True)])

    @staticmethod
    def nearest(vector: torch.Tensor) -> int:
        return int((EMBEDDINGS - vector).square().sum(1).argmin())


TRAIN, HELD_OUT = digits()


def one_of(label: int, seed: int) -> torch.Tensor:
    """The image of a digit that belongs to a seed."""
    images = TRAIN.inputs[TRAIN.labels == label]
    return images[seed % len(images)]


def truly(label: int) -> Callable[[torch.Tensor], np.ndarray]:
    """Which images are real ones of a digit, without a classifier's error."""
    image_bytes = {image.numpy().tobytes() for image in TRAIN.inputs[TRAIN.labels == label]}
    return lambda images: np.array([image.numpy().tobytes() in image_bytes for image in images])

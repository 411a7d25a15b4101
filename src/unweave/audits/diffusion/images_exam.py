"""The part of an exam that all generators of images share: answers are images by condition."""

import hashlib
import os
import zlib
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from unweave.audits.diffusion.description import describe
from unweave.audits.diffusion.drift import FeatureExtractor, drift
from unweave.audits.diffusion.metrics import GENERATION
from unweave.audits.diffusion.samples import Samples
from unweave.audits.exam import Exam
from unweave.audits.metrics import Values, gap_parts, mean_gap
from unweave.audits.pictures import png_uri
from unweave.record.files import draft

Drawn = Mapping[int, Tensor]
"""uint8 images [n, channel, height, width] in the order of their seeds, by condition."""

APART = 100_000
"""The distance of the seeds of two conditions, so that an image depends on its condition and number alone."""

ACROSS = 6
"""The number of images of a class on a contact sheet."""

MARK = (213, 94, 0, 255)
"""The frame of a forgotten class: red, green, blue, opacity."""


class ImagesExam(Exam[Drawn]):
    """Questions to generators whose answers are images by condition."""

    distance: ClassVar[str] = "class_tv"
    suffix: ClassVar[str] = "npz"

    @property
    @abstractmethod
    def feature_extractor(self) -> FeatureExtractor:
        """Computes features of images; the same for all generators of a comparison."""
        ...

    @property
    @abstractmethod
    def forgotten_conditions(self) -> Sequence[int]:
        """The forgotten conditions."""
        ...

    @property
    @abstractmethod
    def retained_conditions(self) -> Sequence[int]:
        """The retained conditions."""
        ...

    @abstractmethod
    def samples(self, outputs: Drawn) -> Samples:
        """The recogniser's view of the images, with real images to compare."""
        ...

    @abstractmethod
    def with_attacks(self, names: str) -> "ImagesExam":
        """The exam with some attacks that try to recover the forgotten class or concept.

        Args:
            names: "default" or "all", or names of `image_attacks` with commas between.

        Raises:
            ValueError: If an attack is unknown or of another family.
        """
        ...

    def save(self, outputs: Drawn, path: Path) -> None:
        """Writes the images as arrays named by their condition."""
        write_images(outputs, path)

    def load(self, path: Path) -> Drawn:
        """Reads the images."""
        return read_images(path)

    def fingerprint(self, outputs: Drawn) -> str:
        """The digest of the images."""
        return hashlib.sha256(
            b"".join(outputs[each].numpy().tobytes() for each in sorted(outputs))
        ).hexdigest()

    def drift(self, outputs: Drawn, original: Drawn) -> dict[str, float]:
        """The distance of images under retained conditions from the original's on the same seeds."""
        ours, theirs = (
            torch.cat([each[condition] for condition in self.retained_conditions])
            for each in (outputs, original)
        )
        return drift(ours, theirs, self.feature_extractor)

    def describe(self, outputs: Drawn) -> dict[str, Any]:
        """Shares of images that show their class, and the recognised classes of forgotten conditions."""
        return describe(self.samples(outputs), rng=np.random.default_rng(0))

    def sheet(self, outputs: Drawn) -> str:
        """A row per condition with its first images."""
        return draw_sheet(outputs, self.forgotten_conditions)

    def score_trial(self, values: Values, retrained_values: Values, floor: float) -> dict[str, float]:
        """The mean gap in excess of that of two retrained models, and the loss in image quality."""
        parts, excess = gap_parts(values, retrained_values, GENERATION), max(0.0, values["class_tv"] - floor)
        further = self.further_parts(values, retrained_values)
        points = parts | {"class_tv": GENERATION["class_tv"].points * excess} | further
        loss = max(0.0, values["kid_retain"])
        figures = {
            "gap": mean_gap(values, retrained_values, GENERATION),
            "excess": excess,
            "kid_retain": loss,
        }
        return {"value": float(np.mean(list(points.values()))) + 100 * loss, **figures, **further}

    def further_parts(self, values: Values, retrained_values: Values) -> dict[str, float]:
        """Parts of a trial's value beside those of the mean gap, in points; none unless an exam has some."""
        return {}

    def objectives(self, outputs: Drawn, values: Values, retrained_values: Values) -> dict[str, float]:
        """The parts of the mean gap, and the KID of retained conditions."""
        parts = gap_parts(values, retrained_values, GENERATION)
        distances = {name: part / (100 * len(parts)) for name, part in parts.items()}
        return {**distances, "kid_retain": max(0.0, values["kid_retain"])}


def draw_sheet(images: Drawn, forgotten: Collection[int]) -> str:
    """Draws a row per class with its first images, as PNG; rows of forgotten classes have a frame.

    Args:
        images: uint8 images [n, channel, height, width] by class, grey or RGB.
        forgotten: The forgotten classes.
    """
    return png_uri(draw_rows(images, forgotten))


def draw_rows(images: Drawn, forgotten: Collection[int]) -> UInt8[np.ndarray, "height width 4"]:
    """The pixels of a sheet."""
    rows = [draw_row(images[label][:ACROSS], framed=label in forgotten) for label in sorted(images)]
    return np.concatenate(rows)


def draw_row(images: Tensor, *, framed: bool) -> UInt8[np.ndarray, "height width 4"]:
    """Images side by side; gaps are transparent, or have the colour of the frame."""
    pixels = images.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    n, height, width, _ = pixels.shape
    gap = max(1, height // 8)
    canvas = np.zeros((height + 2 * gap, gap + n * (width + gap), 4), dtype=np.uint8)
    canvas[:] = MARK if framed else 0
    for i, image in enumerate(pixels):
        x = gap + i * (width + gap)
        canvas[gap : gap + height, x : x + width] = np.dstack([image, np.full(image.shape[:2], 255)])
    return canvas


def write_images(images: Drawn, path: Path) -> None:
    """Writes images to a file in npz, atomically."""
    arrays: dict[str, Any] = {str(label): each.numpy() for label, each in images.items()}
    with draft(path) as draft_path:
        with draft_path.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(draft_path, path)


def read_images(path: Path) -> dict[int, Tensor]:
    """Reads the images.

    Raises:
        ValueError: If the file is truncated.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {int(label): torch.from_numpy(arrays[label]) for label in arrays.files}
    except (ValueError, EOFError, BadZipFile, zlib.error) as error:
        advice = f"delete it and {path.with_suffix('.json').name}, and it is made again"
        raise ValueError(f"{path} is truncated or holds no images ({error}): {advice}") from error

"""Data sets by name: `load("digits")` returns the training source and the held-out source."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.choices import explain_unknown
from unweave.data import Raw, Source
from unweave.data.formats import read_idx, read_parquet
from unweave.data.images import in_memory, read_images
from unweave.data.in_memory import Resident

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
DIGITS_HELD_OUT = 360
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


def load(
    name: str,
    *,
    folder: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    augment: bool = True,
) -> tuple[Source, Source]:
    """Load a data set by name as (training source, held-out source).

    Args:
        name: "digits" (scikit-learn's, 1,437 + 360 images of 8 x 8 as 64 floats), "digit-images" (the same as
            bytes), "fashion-mnist" (60,000 + 10,000 of 28 x 28), "cifar10" (50,000 + 10,000 of 32 x 32 in
            colour), or "images" for your own (see `images.read_images`).
        folder: The folder of the files. Fashion-MNIST: the four idx files, plain or gzipped; None: the folder
            of Debian's package dataset-fashion-mnist. CIFAR-10: parquet files in the Hub's schema; None:
            torchvision's copy, downloaded if there is a network.
        limit: The number of training examples to keep, with the classes in proportion; all if None.
        seed: Chooses the examples that `limit` keeps.
        augment: Crop and mirror training images at random, if the data set is usually augmented.
    """
    if name not in _LOADERS:
        raise ValueError(explain_unknown("data set", name, _LOADERS))
    train, held_out = _LOADERS[name](folder)
    train = train if augment else replace(train, crop=0, flip=False)
    return (train if limit is None else select_examples(train, stratum(train, limit, seed))), held_out


def flip_labels(source: Source, fraction: float, n_classes: int, seed: int) -> Source:
    """Adds label noise to a source: replaces a fraction of the labels by a uniform other class.

    Args:
        source: The source; stays unchanged.
        fraction: The fraction of examples that get a wrong label, in (0, 1).
        n_classes: The number of classes, at least two.
        seed: Chooses the examples and their wrong labels.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1), found {fraction}")
    if n_classes < 2 or int(source.labels.max()) >= n_classes:
        raise ValueError(f"n_classes must exceed 1 and every label, found {n_classes}")
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randperm(len(source), generator=generator)[: round(fraction * len(source))]
    labels = source.labels.clone()
    labels[positions] += torch.randint(1, n_classes, positions.shape, generator=generator)
    return RelabelledSource(source, labels % n_classes)


@dataclass(frozen=True, eq=False)
class RelabelledSource:
    """A source with other labels.

    Args:
        source: Provides everything but the labels.
        labels: The labels, with shape [n], on the CPU.
    """

    source: Source
    labels: Int64[Tensor, " n"]

    @property
    def names(self) -> Sequence[str] | None:
        """The names of the source."""
        return self.source.names

    def __len__(self) -> int:
        return len(self.labels)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        """Yield the examples at the positions of each index tensor; see `Source.stream`."""
        labels = self.labels
        for raw in self.source.stream(order, generator=generator):
            labels = labels.to(raw.ids.device)  # copied once, when the first batch shows the device
            yield Raw(raw.ids, raw.inputs, labels.index_select(0, raw.ids))

    def digest(self) -> str:
        """SHA-256 of the source's digest and the labels."""
        return self._digest

    def to(self, device: torch.device | str) -> "RelabelledSource":
        """The same, on `device`."""
        return replace(self, source=self.source.to(device))

    @cached_property
    def _digest(self) -> str:
        return sha256(self.source.digest().encode() + self.labels.numpy().tobytes()).hexdigest()


def as_images(source: Source) -> Resident:
    """The images of a source for a generator: in [-1, 1], neither cropped nor normalised by their statistics.

    Raises:
        ValueError: If the source does not hold images as bytes.
    """
    images = in_memory(source)
    if images.inputs.dtype != torch.uint8:
        raise ValueError(f"a generator is trained on images as bytes (uint8), found {images.inputs.dtype}")
    half = (0.5,) * images.inputs.shape[1]
    return replace(images, mean=half, std=half, crop=0)


def _images(folder: str | None) -> tuple[Resident, Resident]:
    if folder is None:
        raise ValueError(
            "your own images need a folder or an .npz file, found none: name it with --data beside the "
            "model's folder, or as folder in [data] of the recipe"
        )
    return read_images(folder)


def _digits(folder: str | None) -> tuple[Resident, Resident]:
    levels, labels, (train, held_out) = _digit_levels(folder)
    pixels = levels / 16
    mean, std = pixels[train].mean(), pixels[train].std()
    inputs = torch.from_numpy((pixels - mean) / std).to(torch.float32)
    first, second = (Resident(inputs[part], labels[part], image=(1, 8, 8)) for part in (train, held_out))
    return first, second


def _digit_images(folder: str | None) -> tuple[Resident, Resident]:
    levels, labels, (train, held_out) = _digit_levels(folder)
    images = torch.from_numpy(np.rint(levels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    return Resident(images[train], labels[train]), Resident(images[held_out], labels[held_out])


def _digit_levels(folder: str | None) -> tuple[np.ndarray, Tensor, tuple[np.ndarray, np.ndarray]]:
    """Grey levels from 0 to 16, with shape [n, 64]; the labels; positions of training and held-out images."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if folder is not None:
        raise ValueError(f"digits come with scikit-learn and need no folder, found {folder!r}: drop it")
    levels, classes = load_digits(return_X_y=True)
    positions = np.arange(len(classes))
    split = train_test_split(positions, test_size=DIGITS_HELD_OUT, stratify=classes, random_state=0)
    labels = torch.from_numpy(classes).to(torch.int64)
    return np.asarray(levels), labels, (np.sort(split[0]), np.sort(split[1]))


def _fashion_mnist(folder: str | None) -> tuple[Resident, Resident]:
    place = Path(folder or DEBIAN_FASHION_MNIST)
    if not place.is_dir():
        raise ValueError(
            f"Fashion-MNIST needs a folder with its four idx files, found none at {place}: "
            "install Debian's package dataset-fashion-mnist, or give the folder"
        )
    return _idx_source(place, "train"), _idx_source(place, "t10k")


def _idx_source(folder: Path, part: str) -> Resident:
    images = read_idx(folder / f"{part}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte", dimensions=1)
    # mean and std computed from the 60,000 training images
    return Resident(images.unsqueeze(1), labels.to(torch.int64), mean=(0.2860,), std=(0.3530,))


def _cifar10(folder: str | None) -> tuple[Resident, Resident]:
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"CIFAR-10 needs a folder with its parquet files, found none at {folder}")
    read_part = _torchvision_cifar10 if folder is None else partial(read_parquet, Path(folder))
    # mean, std and the augmentation of the training set: Unlearn-Saliency (SalUn's code), as in its originals
    train = Resident(*read_part("train"), mean=CIFAR10_MEAN, std=CIFAR10_STD, crop=4, flip=True)
    return train, Resident(*read_part("test"), mean=CIFAR10_MEAN, std=CIFAR10_STD)


def _torchvision_cifar10(part: str) -> tuple[Tensor, Tensor]:
    advice = "give a folder with its parquet files (train*.parquet, test*.parquet)"
    try:
        published = importlib.import_module("torchvision.datasets")  # the extra may be missing
    except ImportError as error:
        raise ValueError(f"CIFAR-10 without a folder needs torchvision: install it, or {advice}") from error
    try:
        place = str(Path(torch.hub.get_dir()) / "datasets")
        data = published.CIFAR10(place, train=part == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"CIFAR-10 could not be downloaded ({error}): {advice}") from error
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def stratum(source: Source, limit: int, seed: int) -> Tensor:
    """Positions of `limit` examples of a source, in order, with the classes in proportion.

    Raises:
        ValueError: If the chosen or the remaining examples lack a class.
    """
    from sklearn.model_selection import train_test_split

    classes = len(source.labels.unique())
    if not classes <= limit <= len(source) - classes:
        raise ValueError(
            f"limit must leave one example of each class on both sides: expected {classes} to "
            f"{len(source) - classes}, found {limit}"
        )
    positions, _ = train_test_split(
        np.arange(len(source)), train_size=limit, stratify=source.labels.numpy(), random_state=seed
    )
    return torch.from_numpy(np.sort(positions))


def select_examples(source: Source, positions: Tensor) -> Source:
    """The examples of a source at some positions, as a source."""
    if isinstance(source, RelabelledSource):
        return RelabelledSource(select_examples(source.source, positions), source.labels[positions])
    assert isinstance(source, Resident), "data sets that have a name are in memory"
    names = None if source.names is None else tuple(source.names[i] for i in positions.tolist())
    inputs = source.inputs[positions.to(source.inputs.device)]
    return replace(source, inputs=inputs, labels=source.labels[positions], names=names)


_LOADERS: dict[str, Callable[[str | None], tuple[Resident, Resident]]] = {
    "digits": _digits,
    "digit-images": _digit_images,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "images": _images,
}

NAMES = tuple(name for name in _LOADERS if name != "images")
"""Data sets that are identified by their name alone."""

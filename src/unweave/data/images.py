"""Labelled images from a user's own files: a folder with one sub-folder per class, or an .npz archive.

Labels are the names of the sub-folders if these are numbers, or else their places in the order of names.
Without a test part, the same fifth of every class is always held out.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from unweave.data import Source
from unweave.data.image_folder_facts import UserImages, classes_of, is_label
from unweave.data.in_memory import Resident

SUFFIXES = (".png", ".jpg", ".jpeg")
PARTS = ("train", "test")
HELD_OUT = 0.2


def read_images(place: str | Path) -> tuple[UserImages, UserImages]:
    """Reads the training and the held-out images, uint8 [n, channel, height, width].

    Args:
        place: A folder with one sub-folder per class; a folder with two such folders, train and test; or an
            .npz file with the arrays `images` [n, channel, height, width] or [n, height, width] and `labels`,
            and optionally `test_images` and `test_labels`.

    Raises:
        ValueError: If there is no such folder or file, an image can't be read or differs in size, or a class
            has no image.
    """
    path = Path(place)
    if path.suffix == ".npz":
        return from_archive(path)
    if not path.is_dir():
        raise ValueError(f"expected a folder of images or an .npz file, found none at {path}")
    if all((path / part).is_dir() for part in PARTS):
        classes = classes_of(path / "train")
        return from_folder(path / "train", classes), from_folder(path / "test", classes)
    return hold_out_fifth(from_folder(path, classes_of(path)))


def from_archive(path: Path) -> tuple[UserImages, UserImages]:
    """Reads an .npz file."""
    if not path.is_file():
        raise ValueError(f"expected images in {path}, found no such file")
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it holds one array without a name")
            contents = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or no .npz file: {error}") from error
    for name in ("images", "labels"):
        if name not in contents:
            raise ValueError(f"{path} must hold the arrays images and labels, found {', '.join(contents)}")
    images = read_archive_part(contents, "", path)
    return (
        (images, read_archive_part(contents, "test_", path))
        if "test_images" in contents
        else hold_out_fifth(images)
    )


def read_archive_part(contents: Mapping[str, np.ndarray], part: str, path: Path) -> UserImages:
    """Reads one part of an archive."""
    images, labels = contents[f"{part}images"], contents.get(f"{part}labels")
    if images.dtype != np.uint8:
        raise ValueError(
            f"{part}images in {path} must be bytes (uint8), found {images.dtype}: round what lies in [0, 1] "
            "times 255"
        )
    if images.ndim not in (3, 4):
        raise ValueError(
            f"{part}images in {path} must have shape [n, channel, height, width], found {list(images.shape)}"
        )
    if labels is None or labels.ndim != 1 or len(labels) != len(images) or labels.dtype.kind not in "iu":
        kind = "none" if labels is None else f"{labels.dtype} with shape {list(labels.shape)}"
        raise ValueError(f"{part}labels in {path} must be one whole number per image, found {kind}")
    pixels = images[:, None] if images.ndim == 3 else images
    return check_labelled(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), str(path))


def from_folder(folder: Path, classes: Mapping[str, int]) -> UserImages:
    """Reads the images of the sub-folders."""
    names = [each.name for each in sorted(folder.iterdir()) if each.is_dir()]
    unknown = [name for name in names if name not in classes and not name.startswith(".")]
    if unknown:
        raise ValueError(f"{folder} has the class {unknown[0]!r}, which is none of {', '.join(classes)}")
    files = [(path, label) for name, label in classes.items() for path in list_images(folder / name)]
    arrays = [read_pixels(path) for path, _ in files]
    refuse_mixed(arrays, [path for path, _ in files])
    channels = max(each.shape[2] for each in arrays)
    pictures = [each if each.shape[2] == channels else np.repeat(each, channels, axis=2) for each in arrays]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    user_images = check_labelled(images, torch.tensor([label for _, label in files]), str(folder))
    return replace(user_images, classes=tuple(name for name in classes if not is_label(name)))


def list_images(folder: Path) -> list[Path]:
    """The image files of one class, sorted by name."""
    paths = sorted(each for each in folder.glob("*") if each.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"class {folder.name!r} has no image ({', '.join(SUFFIXES)}) in {folder}")
    return paths


def read_pixels(path: Path) -> UInt8[np.ndarray, "height width channel"]:
    """Reads the pixels of a file: grey images as one channel, all others as RGB."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{path} must have eight bits a channel, found mode {image.mode}")
            array = np.array(image if image.mode == "L" else image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # pillow raises both for broken files
        raise ValueError(f"{path} is truncated or no image: {error}") from error
    return array[:, :, None] if array.ndim == 2 else array


def refuse_mixed(arrays: Sequence[np.ndarray], files: Sequence[Path]) -> None:
    """Raises if the images differ in size."""
    first = arrays[0].shape[:2]
    for array, path in zip(arrays, files, strict=True):
        if array.shape[:2] != first:
            raise ValueError(
                f"images must be of one size, found {first[1]} x {first[0]} in {files[0]} and "
                f"{array.shape[1]} x {array.shape[0]} in {path}"
            )


def check_labelled(images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, " n"], place: str) -> UserImages:
    """Returns the images with their labels; raises if a class has no image."""
    if not len(labels) or int(labels.min()) < 0:
        actual = "no image" if not len(labels) else f"label {int(labels.min())}"
        raise ValueError(f"labels in {place} must be at least 0, found {actual}")
    classes = labels.unique()  # no bincount, which needs memory for every number up to the largest
    empty = (classes != torch.arange(len(classes))).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            f"class {empty[0]} has no image in {place}, which has classes up to {int(labels.max())}"
        )
    return UserImages(images, labels)


def hold_out_fifth(images: UserImages) -> tuple[UserImages, UserImages]:
    """Splits images into a training part and a held-out fifth of every class."""
    counts = images.labels.bincount()
    if int(counts.min()) < 2:
        raise ValueError(
            f"a class needs two images, one to hold out, found 1 of class {int(counts.argmin())}"
        )
    out = torch.zeros(len(images), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for label, count in enumerate(counts.tolist()):
        order = torch.randperm(count, generator=generator)[: max(1, round(HELD_OUT * count))]
        out[(images.labels == label).nonzero()[:, 0][order]] = True
    training, held_out = (
        replace(images, inputs=images.inputs[part], labels=images.labels[part], parted=True)
        for part in (~out, out)
    )
    return training, held_out


def in_memory(source: Source) -> Resident:
    """Reads a source of single images, stored as bytes, into memory.

    Raises:
        ValueError: If its examples are not single images of bytes.
    """
    if isinstance(source, Resident):
        return source
    batches = []
    for raw in source.stream(torch.arange(len(source)).split(1024)):
        fields = list(raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs)
        if len(fields) != 1 or fields[0].ndim != 4 or fields[0].dtype != torch.uint8:
            shapes = ", ".join(f"{each.dtype} {list(each.shape[1:])}" for each in fields)
            raise ValueError(f"a generator is trained on images as bytes (uint8), found {shapes}")
        batches.append(fields[0])
    names = None if source.names is None else tuple(source.names)
    return Resident(torch.cat(batches), source.labels, names=names)

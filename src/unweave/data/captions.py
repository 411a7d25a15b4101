"""A folder of images with captions, as the ImageFolder of Hugging Face has it, and the concepts in them.

Beside the images, `metadata.jsonl` or `metadata.csv` has a row for each image: `file_name`, its caption in
`text`, and any other columns. A folder may have two such folders, train and test; if not, a fifth of the
images is held out.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from unweave.data.images import HELD_OUT, PARTS, SUFFIXES, read_pixels, refuse_mixed

METADATA = ("metadata.jsonl", "metadata.csv")
FILE, TEXT = "file_name", "text"


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """Images in memory, with a row of text for each.

    Args:
        images: The images as bytes, in RGB.
        rows: A row for each image, by the names of the columns.
        place: The folder that it was read from.
    """

    images: UInt8[Tensor, "n channel height width"]
    rows: tuple[dict[str, str], ...]
    place: Path

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def captions(self) -> list[str]:
        """The caption of each image."""
        return [row[TEXT] for row in self.rows]

    @property
    def names(self) -> tuple[str, ...]:
        """The file of each image."""
        return tuple(row[FILE] for row in self.rows)

    def part(self, places: Int64[Tensor, " k"]) -> "CaptionedImages":
        """Some of the images."""
        return CaptionedImages(self.images[places], tuple(self.rows[i] for i in places.tolist()), self.place)


def read_captioned(place: str | Path) -> tuple[CaptionedImages, CaptionedImages | None]:
    """Reads the training images, and the test images if the folder has them.

    Raises:
        ValueError: If there is no folder or no metadata, an image has no caption or a caption no image, or an
            image can't be read or differs in size.
    """
    folder = Path(place)
    if not folder.is_dir():
        raise ValueError(f"expected a folder of images with captions, found none at {folder}")
    if all((folder / part).is_dir() for part in PARTS):
        return read_part(folder / "train"), read_part(folder / "test")
    return read_part(folder), None


def read_part(folder: Path) -> CaptionedImages:
    """Reads one folder."""
    rows = read_rows(folder)
    refuse_unpaired(folder, [row[FILE] for row in rows])
    files = [folder / row[FILE] for row in rows]
    arrays = [as_rgb(read_pixels(path)) for path in files]
    refuse_mixed(arrays, files)
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return CaptionedImages(images, tuple(rows), folder)


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Reads the metadata of a folder; all values become text."""
    paths = [folder / name for name in METADATA if (folder / name).exists()]
    if len(paths) != 1:
        names = " and ".join(path.name for path in paths) or "neither"
        raise ValueError(
            f"{folder} must hold one of {' and '.join(METADATA)} with captions, or two such folders, "
            f"{' and '.join(PARTS)}; found {names}"
        )
    (path,) = paths
    try:
        rows = read_csv(path) if path.suffix == ".csv" else read_lines(path)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    for number, row in enumerate(rows, 1):
        for column in (FILE, TEXT):
            if not row.get(column, "").strip():
                raise ValueError(f"row {number} of {path} has no {column!r}, found {', '.join(row)}")
    if not rows:
        raise ValueError(f"{path} has no rows: expected one for each image")
    return rows


def read_csv(path: Path) -> list[dict[str, str]]:
    """Reads a table with a header."""
    with path.open(newline="", encoding="utf-8-sig") as file:  # as Excel writes it
        return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]


def read_lines(path: Path) -> list[dict[str, str]]:
    """Reads one JSON object a line."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must hold a JSON object")
    return [{key: as_text(value) for key, value in row.items()} for row in rows]


def as_text(value: object) -> str:
    """A JSON value as text; null is no text."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def refuse_unpaired(folder: Path, names: Sequence[str]) -> None:
    """Raises if an image is of another kind, has no caption or two, or a caption has no image."""
    parents = {(folder / name).parent for name in names if ".." not in Path(name).parts}
    folders = {folder, *(place for place in parents if place.is_dir() and place.is_relative_to(folder))}
    files = {path.relative_to(folder).as_posix() for place in folders for path in place.iterdir()}
    images = {name for name in files if Path(name).suffix.lower() in SUFFIXES}
    other = sorted(set(names) & files - images)
    if other:
        raise ValueError(f"images must be {', '.join(SUFFIXES)}, found {other[0]} in {folder}: convert it")
    repeated = (
        sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    )
    for kind, faults in (
        ("captions without an image", sorted(set(names) - images)),
        ("images without a caption", sorted(images - set(names))),
        ("images with several captions", repeated),
    ):
        if faults:
            raise ValueError(f"{folder} has {len(faults)} {kind}, such as {faults[0]}: mend its metadata")


def as_rgb(pixels: UInt8[np.ndarray, "height width channel"]) -> UInt8[np.ndarray, "height width 3"]:
    """Repeats the only channel of a grey image."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


@dataclass(frozen=True)
class Concept:
    """What decides which captions hold a concept.

    Args:
        words: Phrases such as "a three"; a caption holds one if its words occur in it in a row, whatever the
            case. Articles at the start of a phrase are ignored.
        prompts: Whole captions, whatever space surrounds them.
        column: A column of the metadata, with the values that mean the concept.
        values: These values.
    """

    words: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    column: str | None = None
    values: tuple[str, ...] = ()

    def holds(self, data: CaptionedImages) -> Bool[Tensor, " n"]:
        """Which images hold the concept.

        Raises:
            ValueError: If a phrase, a prompt or a value is in no caption, or the column is unknown.
        """
        columns = {name for row in data.rows for name in row} - {FILE}
        if self.column is not None and self.column not in columns:
            names = ", ".join(sorted(columns))
            raise ValueError(f"the metadata of {data.place} has no column {self.column!r}, found {names}")
        mask = torch.zeros(len(data), dtype=torch.bool)
        for phrase in self.words:
            mask |= require_held(phrase, [holds_phrase(text, phrase) for text in data.captions], data)
        for prompt in self.prompts:
            mask |= require_held(prompt, [text.strip() == prompt.strip() for text in data.captions], data)
        for value in self.values:
            column = [row.get(self.column or "", "") for row in data.rows]
            mask |= require_held(value, [each == value for each in column], data, column[0])
        return mask


def require_held(
    what: str, matches: Iterable[bool], data: CaptionedImages, value: str | None = None
) -> Bool[Tensor, " n"]:
    """Raises if no image has what was named; `value` is one of the column, if one was named."""
    rows = torch.tensor(list(matches))
    if not bool(rows.any()):
        if value is not None:
            raise ValueError(
                f"no image in {data.place} has the value {what!r}, found others, such as {value!r}"
            )
        raise ValueError(
            f"no caption in {data.place} holds {what!r}, such as {data.captions[0]!r}: name the concept in "
            "the words of the captions"
        )
    return rows


def holds_phrase(text: str, phrase: str) -> bool:
    """Whether the words of a phrase occur in a text in a row.

    An article at the start does not count, and before another word of the phrase "a" is the same word as
    "an": "a photo of a one" is in the caption "a photo of an one" of a drawing. The last word is no article:
    "hepatitis a".
    """
    return bool(places_of(text, phrase))


def places_of(text: str, phrase: str) -> list[range]:
    """The places, among the words of a text, of each occurrence of a phrase; see `holds_phrase`.

    A phrase without a word, such as "...", occurs nowhere.
    """
    target, words = words_in(phrase), words_in(text)
    if len(target) > 1 and target[0] in ("a", "an", "the"):
        target = target[1:]
    if not target:
        return []
    spans = [range(i, i + len(target)) for i in range(len(words) - len(target) + 1)]
    return [span for span in spans if one_article(words[span.start : span.stop]) == one_article(target)]


def one_article(words: Sequence[str]) -> list[str]:
    """The words with "a" for "an", but for the last one."""
    return ["a" if word == "an" else word for word in words[:-1]] + [*words[-1:]]


def words_in(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def hold_out(holds: Bool[Tensor, " n"]) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " m"]]:
    """Positions of training images and of a held-out fifth, of those with the concept and of the others.

    Raises:
        ValueError: If there are fewer than two images of a kind.
    """
    train, held_out = [], []
    generator = torch.Generator().manual_seed(0)
    for kind, name in ((True, "with the concept"), (False, "without the concept")):
        rows = (holds == kind).nonzero()[:, 0]
        if len(rows) < 2:
            raise ValueError(f"two images {name} are needed, one to hold out, found {len(rows)}")
        order = rows[torch.randperm(len(rows), generator=generator)]
        count = max(1, round(HELD_OUT * len(rows)))
        held_out.append(order[:count])
        train.append(order[count:])
    return torch.cat(train).sort().values, torch.cat(held_out).sort().values

"""The request: the forget set by `--ids`, `--class` or `--random`."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import Tensor

from unweave.cli.project import Project
from unweave.data import Source
from unweave.data.image_folder_facts import UserImages, is_label
from unweave.data.names import find_names
from unweave.split import Split, count_of, first_few, source_positions


@Parameter(name="*")
@dataclass(frozen=True)
class Request:
    """The forget set: exactly one of these, or that of a recipe.

    Args:
        ids: Ids or positions of training examples, separated by commas, or a file with one per line.
        label: A label, or labels separated by commas: all training examples with them. Folders of images can
            be given by name.
        random: A random fraction of the training examples, drawn by --seed.
    """

    ids: str | None = None
    label: Annotated[str | None, Parameter(name="--class")] = None
    random: float | None = None

    def __post_init__(self) -> None:
        flags = self.flags()
        if len(flags) > 1:
            raise ValueError(
                f"say what to forget in one way, found {' and '.join(f'--{name}' for name in flags)}"
            )
        if self.random is not None and not 0 < self.random < 1:
            raise ValueError(f"--random must be a fraction in (0, 1), found {self.random}")

    def flags(self) -> dict[str, Any]:
        """The given flags and their values."""
        values = {"ids": self.ids, "class": self.label, "random": self.random}
        return {name: value for name, value in values.items() if value is not None}

    def words(self) -> str:
        """The request as given, with the first of many ids, and a file name without its folder."""
        if not self.flags():
            return "as the recipe says"
        ((name, value),) = self.flags().items()
        text = Path(value).name if name == "ids" and is_file(value) else str(value)
        return f"--{name} {text}" if len(text) <= LEGIBLE else f"--{name} {text[:LEGIBLE]}..."


NOTHING = Request()
LEGIBLE = 80
"""The largest number of characters of a request in a record."""
POSITION = re.compile(r"-?\d+")
"""A position in text; that of a negative one is refused with the range of positions."""


def positions(request: Request, project: Project, seed: int) -> Tensor:
    """The positions of the forget set.

    Raises:
        ValueError: If there is no request, or no such example.
    """
    train = project.train
    if request.ids is not None:
        return source_positions(train, parse_ids(request.ids, train))
    if request.label is not None:
        return class_positions(train, request.label)
    if request.random is not None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        return order[: max(1, round(request.random * len(train)))]
    if project.forget is None:
        raise ValueError("say what to forget with --ids, --class or --random")
    return project.forget


def parse_ids(ids: str, train: Source) -> Sequence[int] | Sequence[str]:
    """The ids of a list or of a file; a known id takes precedence over a file of that name."""
    words = [word.strip() for word in ids.split(",") if word.strip()]
    matches = find_names(train.names or (), words) >= 0
    if train.names is not None and words and matches.all():
        return words
    if train.names is None and words and all(map(POSITION.fullmatch, words)):
        return [int(word) for word in words]
    if is_file(ids):
        return read_ids(Path(ids), train)
    if train.names is None or Path(ids).suffix in (".txt", ".csv"):
        strange = next((word for word in words if not POSITION.fullmatch(word)), ids)
        raise ValueError(
            "--ids must be positions with commas between, or a file with one a line, "
            f"found {strange!r}: no such file"
        )
    strange = [word for word, is_known in zip(words, matches, strict=True) if not is_known] or [ids]
    raise ValueError(
        "--ids must be ids of the training data, or a file with one a line, found "
        f"{count_of(strange, words or [ids])} neither: {first_few(map(repr, strange))}"
    )


def is_file(text: str) -> bool:
    """Whether a text names a file; a text too long for a name does not."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def read_ids(path: Path, train: Source) -> Sequence[int] | Sequence[str]:
    """The first column of a text or CSV file: one id per line, with an optional heading "id"."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            words = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"--ids must be a text file with one id a line, found other bytes in {path}"
        ) from error
    words = words[1:] if words[:1] == ["id"] else words
    if not words:
        raise ValueError(f"--ids names nothing: {path} is empty")
    if train.names is not None:
        return words
    strange = next((word for word in words if not POSITION.fullmatch(word)), None)
    if strange is not None:
        raise ValueError(f"the training data has no ids, so {path} must hold positions, found {strange!r}")
    return [int(word) for word in words]


def class_positions(train: Source, text: str) -> Tensor:
    """The positions of the examples of some classes, given by label or name."""
    names = train.classes if isinstance(train, UserImages) else ()
    words = [text] if text in names else [word.strip() for word in text.split(",")]
    labels = torch.tensor([label_of(word, train, names) for word in words])
    return torch.isin(train.labels, labels).nonzero()[:, 0]


def label_of(text: str, train: Source, names: Sequence[str]) -> int:
    """The label of a class, given by label or name.

    Raises:
        ValueError: If the training data has no such class.
    """
    label = names.index(text) if text in names else int(text) if is_label(text) else -1
    labels = train.labels.unique().tolist()
    if label not in labels:
        legend = (
            f" ({', '.join(f'{number} is {name}' for number, name in enumerate(names))})" if names else ""
        )
        raise ValueError(
            f"--class must be a label of the training data, {labels[0]}..{labels[-1]}{legend}, found {text}"
        )
    return label


def about_own_images(split: Split) -> list[str]:
    """Notes on a request about a user's own images."""
    train, test = split.train, split.held_out
    if not isinstance(train, UserImages):
        return []
    count = train.labels[split.forget].bincount()
    request_counts = {label: int(count[label]) for label in count.nonzero()[:, 0].tolist()}
    if train.parted:
        totals = torch.cat([train.labels, test.labels]).bincount().tolist()
        parts = [
            f"{n} of {totals[label]} images of class {train.class_name(label)}"
            for label, n in request_counts.items()
        ]
        return [
            f"{len(train) + len(test)} images; a fifth of each class is set aside as held out, since no test "
            f"part is named: {', '.join(parts)} are the request, and positions count without what is set "
            "aside. If the model was trained on all of them, name a test part of your own (folders train and "
            "test, or test_images and test_labels)."
        ]
    parts = [f"{n} images of class {train.class_name(label)}" for label, n in request_counts.items()]
    return [f"The request: {', '.join(parts)}."] if train.classes else []

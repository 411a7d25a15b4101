"""Real digits or garments, drawn in colours and styles under captions such as "a bold blue zero".

The captions have three factors: an object, a colour and a style. Each object has one colour that is left out
of the training images, and two templates of captions are left out: they give prompts that a model never saw.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.choices import explain_unknown, list_first
from unweave.data.captions import FILE, METADATA, TEXT, CaptionedImages
from unweave.data.colours_and_styles import COLOURS, STYLES, Grey, paint, resize
from unweave.data.datasets import load
from unweave.data.images import PARTS, in_memory

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GARMENTS = ("tee", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
"""The classes of Fashion-MNIST, one word each, none of which holds another."""

__all__ = ["Drawings", "write_captioned"]

TEMPLATES = (
    "a photo of a {object}",
    "a {colour} {object}",
    "a {style} {object}",
    "a {style} {colour} {object}",
    "a picture of a {colour} {object}",
    "the {object} in {colour}",
)
"""The templates of captions in training."""

HELD_OUT_TEMPLATES = ("an image of a {style} {colour} {object}", "one {object}, painted in {colour}")
"""Templates for prompts that are never trained; their words may be new too."""

FACTORS: tuple[str, ...] = ("object", "colour", "style")
"""The factors of a drawing, which are also columns of the metadata."""


@dataclass(frozen=True)
class Subject:
    """A data set of grey images whose classes have names.

    Args:
        data: Its name (see `datasets.load`).
        objects: The name of each class.
        gamma: The exponent of its grey levels; below one, faint parts become solid.
    """

    data: str
    objects: tuple[str, ...]
    gamma: float = 1.0


SUBJECTS: Mapping[str, Subject] = {
    "digits": Subject("digit-images", DIGITS),
    "garments": Subject("fashion-mnist", GARMENTS, gamma=0.4),
}
"""What can be drawn, by name."""


@dataclass(frozen=True)
class Drawings:
    """How to draw a data set.

    Args:
        subject: "digits" (scikit-learn's) or "garments" (Fashion-MNIST).
        size: The height and width of a drawing, in pixels.
        copies: The number of drawings of each training image, in different colours or styles. A held-out
            image is drawn once.
        limit: The number of training images and of held-out images; all if None.
        seed: Chooses colours, styles, templates and what `limit` keeps.
        folder: The folder of the files (see `datasets.load`).
    """

    subject: str = "digits"
    size: int = 16
    copies: int = 4
    limit: int | None = None
    seed: int = 0
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.subject not in SUBJECTS:
            raise ValueError(explain_unknown("subject", self.subject, SUBJECTS))
        pairs = (len(COLOURS) - 1) * len(STYLES)
        if not 1 <= self.copies <= pairs or self.size < 8:
            raise ValueError(
                f"copies must be in [1, {pairs}] and size at least 8, found {self.copies} and {self.size}"
            )

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The values of each factor."""
        return dict(
            zip(FACTORS, (SUBJECTS[self.subject].objects, tuple(COLOURS), tuple(STYLES)), strict=True)
        )

    @property
    def held_out_pairs(self) -> tuple[tuple[str, str], ...]:
        """The pair of object and colour of each object that no training image shows."""
        colours = tuple(COLOURS)
        return tuple((name, colours[place % len(colours)]) for place, name in enumerate(self.names["object"]))

    def draw(self) -> tuple[CaptionedImages, CaptionedImages]:
        """Draws the training images and the held-out images; neither shows a pair that is held out."""
        return self._draw(every_pair=False)

    def draw_every_pair(self) -> tuple[CaptionedImages, CaptionedImages]:
        """Draws the same shapes in all pairs of object and colour: for a recogniser, which must know them."""
        return self._draw(every_pair=True)

    def prompts(
        self, templates: Sequence[str] = TEMPLATES, *, held_out: bool = False
    ) -> list[dict[str, str]]:
        """All captions of templates, as rows with their factors; each caption once.

        A factor that a template does not name is missing in its rows.

        Args:
            templates: The templates, such as `HELD_OUT_TEMPLATES`.
            held_out: Whether the captions are of the pairs that are held out, or of all others.
        """
        rows: dict[str, dict[str, str]] = {}
        for template, values in product(templates, product(*self.names.values())):
            row = dict(zip(FACTORS, values, strict=True))
            factors = {name: value for name, value in row.items() if f"{{{name}}}" in template}
            is_pair = "colour" in factors and (row["object"], row["colour"]) in self.held_out_pairs
            if is_pair == held_out:
                text = caption(template, row)
                rows[text] = {TEXT: text, **factors}
        return list(rows.values())

    def _draw(self, *, every_pair: bool) -> tuple[CaptionedImages, CaptionedImages]:
        generator = torch.Generator().manual_seed(self.seed)
        subject, parts = SUBJECTS[self.subject], []
        for source, copies in zip(load(subject.data, folder=self.folder), (self.copies, 1), strict=True):
            order = torch.randperm(len(source), generator=generator)[: self.limit].sort().values
            images, labels = in_memory(source).inputs[order], source.labels[order]
            shapes = resize(images, self.size) ** subject.gamma
            looks = self._looks(labels, copies, every_pair, generator)
            parts.append(self._paint(shapes, labels, looks, generator))
        return parts[0], parts[1]

    def _looks(
        self, labels: Int64[Tensor, " n"], copies: int, every_pair: bool, generator: torch.Generator
    ) -> Int64[Tensor, "n copies"]:
        """The colour and style of each copy of each image, as one number; balanced in each class."""
        styles, looks = len(STYLES), torch.empty(len(labels), copies, dtype=torch.int64)
        for label in labels.unique().tolist():
            combinations = torch.arange(len(COLOURS) * styles)
            if not every_pair:
                combinations = combinations[combinations // styles != label % len(COLOURS)]
            rows = (labels == label).nonzero()[:, 0]
            order = combinations[torch.randperm(len(combinations), generator=generator)]
            looks[rows] = order[torch.arange(len(rows) * copies) % len(order)].view(-1, copies)
        return looks

    def _paint(
        self,
        shapes: Grey,
        labels: Int64[Tensor, " n"],
        looks: Int64[Tensor, "n copies"],
        generator: torch.Generator,
    ) -> CaptionedImages:
        copies = looks.shape[1]
        colours, styles = looks.flatten() // len(STYLES), looks.flatten() % len(STYLES)
        images = paint(shapes.repeat_interleave(copies, 0), colours, styles)
        numbers = torch.stack([labels.repeat_interleave(copies), colours, styles], 1).tolist()
        templates = torch.randint(len(TEMPLATES), (len(images),), generator=generator).tolist()
        rows = []
        for place, (values, template) in enumerate(zip(numbers, templates, strict=True)):
            row = {name: self.names[name][value] for name, value in zip(FACTORS, values, strict=True)}
            rows.append({FILE: f"{place:05}.png", TEXT: caption(TEMPLATES[template], row), **row})
        return CaptionedImages(images, tuple(rows), Path(self.subject))


def caption(template: str, row: Mapping[str, str]) -> str:
    """The caption of a template, with "an" before the letters aeiou.

    So it is "an one". Digests of trained models depend on the captions: another rule would be other data.
    """
    words = template.format(**row).split()
    pairs = zip(words, [*words[1:], ""], strict=True)
    return " ".join(
        "an" if word == "a" and next_word[:1] in set("aeiou") else word for word, next_word in pairs
    )


def factor_numbers(
    data: CaptionedImages, names: Mapping[str, Sequence[str]]
) -> dict[str, Int64[Tensor, " n"]]:
    """The value of each factor of each image, as its place among the names.

    Args:
        data: Images with a column for each factor.
        names: The values of each factor, as `Drawings.names`.

    Raises:
        ValueError: If an image lacks a factor, or has an unknown value.
    """
    numbers_by_factor: dict[str, Tensor] = {}
    for factor, values in names.items():
        numbers = {value: number for number, value in enumerate(values)}
        for row in data.rows:
            if row.get(factor) not in numbers:
                raise ValueError(
                    f"{factor} of {row[FILE]} must be one of {list_first(values)}, found {row.get(factor)!r}"
                )
        numbers_by_factor[factor] = torch.tensor([numbers[row[factor]] for row in data.rows])
    return numbers_by_factor


def write_captioned(folder: str | Path, train: CaptionedImages, held_out: CaptionedImages) -> Path:
    """Writes images with captions as `captions.read_captioned` reads them: two folders, train and test.

    Raises:
        ValueError: If the folder exists.
    """
    from PIL import Image

    place = Path(folder)
    if place.exists():
        raise ValueError(f"{place} exists: name a new folder")
    for name, data in zip(PARTS, (train, held_out), strict=True):
        part = place / name
        part.mkdir(parents=True)
        for file, image in zip(data.names, data.images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(part / file)
        lines = "".join(json.dumps(row) + "\n" for row in data.rows)
        (part / METADATA[0]).write_text(lines, encoding="utf-8")
    return place

"""Real images with a column for each factor, for the audit of a concept."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from unweave.audits.diffusion.concept_prompts import ConceptPrompts, in_words
from unweave.audits.diffusion.kid import FEWEST
from unweave.audits.diffusion.local_classifier import LocalClassifier
from unweave.audits.diffusion.prompt_file import read_factor, read_prompts
from unweave.data.captioned_drawings import factor_numbers
from unweave.data.captions import FILE, TEXT, CaptionedImages, hold_out, read_captioned

PICTURES = 10
"""The number of real images of the concept from which attackers learn it again."""


@dataclass(frozen=True, eq=False)
class RealImages:
    """Real images.

    Args:
        train: The training images, from which attackers take pictures of the concept.
        held_out: Held-out images, with which drawn images are compared.
    """

    train: CaptionedImages
    held_out: CaptionedImages

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The values of each factor: of all columns that every image has, besides its file and caption.

        Raises:
            ValueError: If there is no such column, or one tells single images apart, as an id does.
        """
        rows = [*self.train.rows, *self.held_out.rows]
        columns = [name for name in rows[0] if all(row.get(name) for row in rows)]
        factors = [name for name in columns if name not in (FILE, TEXT)]
        if not factors:
            raise ValueError(
                f"the metadata of {self.train.place} must have a column for each factor of an image, such as "
                f"object and colour, which every image has; found only {', '.join(columns)}"
            )
        values = {name: tuple(dict.fromkeys(row[name] for row in rows)) for name in factors}
        for name, options in values.items():
            if len(options) > len(rows) / 2:
                raise ValueError(
                    f"the column {name!r} of {self.train.place} must be a factor with few values, found "
                    f"{len(options)} in {len(rows)} images: take it out of the metadata"
                )
        return values

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the images and their rows."""
        digest = hashlib.sha256()
        for each in (self.train, self.held_out):
            digest.update(repr((tuple(each.images.shape), each.rows)).encode())
            digest.update(each.images.contiguous().numpy().data)
        return digest.hexdigest()

    def held_out_images(self, values: Mapping[str, str]) -> UInt8[Tensor, "n channel height width"]:
        """The held-out images that show these values."""
        return images_of(self.held_out, values)

    def training_images(self, values: Mapping[str, str]) -> UInt8[Tensor, "n channel height width"]:
        """The training images that show these values."""
        return images_of(self.train, values)

    def images_to_keep(self, prompts: ConceptPrompts) -> UInt8[Tensor, "n channel height width"]:
        """The held-out images of the classes that prompts to keep name."""
        return torch.cat([self.held_out_images(shows) for shows in prompts.retain_values])

    def refuse_too_few(self, prompts: ConceptPrompts, *, attacked: bool) -> None:
        """Raises if there are too few real images for a KID, for attackers, or to show the concept at all.

        Args:
            prompts: The prompts.
            attacked: Whether attacks run.
        """
        for values in prompts.retain_values:
            count = len(self.held_out_images(values))
            if count < FEWEST:
                raise ValueError(
                    f"a KID needs {FEWEST} held-out images of what prompts to keep name, found {count} of "
                    f"{in_words(values)} in {self.held_out.place}: give more, or leave such prompts out"
                )
        count = len(self.training_images(prompts.concept))
        if not count:
            raise ValueError(
                f"an audit needs a training image of the concept, found none of {prompts.concept_words} in "
                f"{self.train.place}: give some, or spell its column as the concept"
            )
        if attacked and count < PICTURES:
            raise ValueError(
                f"attacks need {PICTURES} training images of the concept, found {count} of "
                f"{prompts.concept_words} in {self.train.place}: set attacks=0, or give more"
            )


def images_of(data: CaptionedImages, values: Mapping[str, str]) -> UInt8[Tensor, "n channel height width"]:
    """The images whose columns have these values."""
    return data.images[shows(data, values)]


def shows(data: CaptionedImages, values: Mapping[str, str]) -> Bool[Tensor, " n"]:
    """Which images have these values in their columns."""
    return torch.tensor([values.items() <= row.items() for row in data.rows])


def read_real_images(
    data: str, file: Path, classifier: LocalClassifier | None
) -> tuple[RealImages, ConceptPrompts]:
    """Reads real images, and the prompts in terms of their factors; a fifth of the images is held out.

    Args:
        data: The folder of the images.
        file: The file of the prompts.
        classifier: The classifier that knows the concept; None if the columns of the images tell the values.

    Raises:
        ValueError: If one of them can't be used.
    """
    train, held_out = read_captioned(data)
    images = RealImages(train, train if held_out is None else held_out)
    if classifier is None:
        prompts = read_prompts(file, images.names)
    else:
        names = {read_factor(file): classifier.names}
        prompts = read_prompts(file, names)
        for part in (images.train, images.held_out):
            factor_numbers(part, names)  # an image of an unknown class is an error
    if held_out is not None:
        return images, prompts
    parts = hold_out(shows(train, prompts.concept))
    return RealImages(*(train.part(each) for each in parts)), prompts

"""A request to erase concepts from a text-to-image model: prompts, latents in four parts, and the task."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from unweave.data.captions import TEXT, CaptionedImages, Concept, hold_out, holds_phrase
from unweave.data.latents import Latents
from unweave.split import Split
from unweave.tasks.diffusion.autoencoder import encode, move_to
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion
from unweave.tasks.diffusion.text_to_image import Prompts, TextToImage, make_task, number_prompts


@dataclass(frozen=True)
class Erasure:
    """What to erase, and what stays.

    Args:
        concepts: The concepts as the user named them, such as "a three".
        column: The column of the metadata whose values are the concepts; their words in the captions if None.
        keep: Prompts to keep that no caption needs to hold.
        target: The prompt that replaces a concept; the empty prompt if None.
        captions: The whole captions that hold a concept, instead of those with its words.

    Raises:
        ValueError: If there is no concept, a kept prompt or the target holds one, or both a column and
            captions are named.
    """

    concepts: tuple[str, ...]
    column: str | None = None
    keep: tuple[str, ...] = ()
    target: str | None = None
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(each.strip() for each in self.concepts) or not self.concepts:
            raise ValueError(f"name a concept to forget, and no empty ones, found {list(self.concepts)}")
        if not all(each.strip() for each in self.keep):
            raise ValueError(
                f"--keep must name a prompt, found {list(self.keep)}: the empty one is always kept"
            )
        if self.column is not None and self.captions:
            raise ValueError("--column and --captions are two ways to find a concept's images: leave one out")
        for kind, texts in (("keep", self.keep), ("as", () if self.target is None else (self.target,))):
            for text in texts:
                matches = [concept for concept in self.concepts if holds_phrase(text, concept)]
                matches += [text] if text in self.captions else []
                if matches:
                    raise ValueError(
                        f"--{kind} {text!r} holds the concept {matches[0]!r}, which is to be forgotten: name "
                        "another prompt"
                    )

    def holds(self, data: CaptionedImages) -> Bool[Tensor, " n"]:
        """Which images hold a concept.

        Raises:
            ValueError: If no caption holds one of them.
        """
        if self.column is not None:
            return Concept(column=self.column, values=self.concepts).holds(data)
        words = () if self.captions else self.concepts
        return Concept(words=words, prompts=self.captions).holds(data)

    @property
    def by_words(self) -> bool:
        """Whether the concepts are words of captions, and no values of a column or name of a list."""
        return self.column is None and not self.captions

    def prompts(self, captions: Iterable[str]) -> tuple[str, ...]:
        """The prompts that stand for the concepts: their names, and captions to forget without such words.

        A value of a column such as "3", or a name for a list of captions, is no prompt that a model knows: it
        is left out if no caption to forget has its words, but some captions are to be forgotten.

        Args:
            captions: The captions to forget.
        """
        concepts = {text: [each for each in self.concepts if holds_phrase(text, each)] for text in captions}
        named_concepts = {each for names in concepts.values() for each in names}
        if self.by_words or not concepts:
            return self.concepts
        other_captions = sorted(text for text, names in concepts.items() if not names)
        return (*(each for each in self.concepts if each in named_concepts), *other_captions)

    def row_holds(self, row: Mapping[str, str]) -> bool:
        """Whether the row of an image says that it holds a concept, as `holds` decides for many images."""
        if self.column is not None:
            return row.get(self.column) in self.concepts
        caption = row[TEXT]
        if self.captions:
            return caption.strip() in self.captions
        return any(holds_phrase(caption, each) for each in self.concepts)


@dataclass(frozen=True)
class ConceptRequest:
    """A request, ready for a method.

    Args:
        prompts: The prompts of the model.
        task: How the model is run and scored.
        split: The latents of the images in four parts.
    """

    prompts: Prompts
    task: TextToImage
    split: Split


def make_request(
    pipeline: StableDiffusion,
    data: CaptionedImages,
    test: CaptionedImages | None,
    erasure: Erasure,
    device: str = "cpu",
) -> ConceptRequest:
    """Encodes images and numbers prompts.

    Args:
        pipeline: The model.
        data: The images that it was trained on.
        test: Held-out images; a fifth of the others if None.
        erasure: What to erase.
        device: The device to encode images on.

    Raises:
        ValueError: If images do not have the size of the model, no caption or every caption holds a concept,
            held-out images lack the column of the concept, a prompt is too long, or captions or prompts to
            keep hold a concept that was forgotten before.
    """
    refuse_other_size(pipeline, [data] if test is None else [data, test])
    mask = erasure.holds(data)
    parts = [*hold_out(mask)] if test is None else [torch.arange(len(data))]
    train, held_out = data.part(parts[0]), data.part(parts[1]) if test is None else test
    mask = mask[parts[0]]
    refuse_forgotten_before(pipeline, [*train.part((~mask).nonzero()[:, 0]).captions, *erasure.keep])
    # a caption without a colour belongs to images of every colour, and only some are in the forget set
    retained = {text for text, is_held in zip(train.captions, mask.tolist(), strict=True) if not is_held}
    refuse_no_column(held_out, erasure.column)
    forgotten = (
        {*train.captions} | {row[TEXT] for row in held_out.rows if erasure.row_holds(row)}
    ) - retained
    prompts = number_prompts(
        [*train.captions, *held_out.captions],
        concepts=erasure.prompts(forgotten),
        forgotten=forgotten,
        kept=erasure.keep,
        target=erasure.target,
    )
    pipeline.tokens(prompts)  # a prompt that is too long is an error before images are encoded
    sources = [latents_of(pipeline, part, prompts, device) for part in (train, held_out)]
    split = Split(sources[0], mask.nonzero()[:, 0], sources[1])
    return ConceptRequest(prompts, make_task(prompts, pipeline.schedule), split)


def make_prompt_request(
    pipeline: StableDiffusion, keep_prompts: Sequence[str], erasure: Erasure
) -> ConceptRequest:
    """A request without images, for a method that needs none: a blank latent stands for each prompt.

    Args:
        pipeline: The model.
        keep_prompts: The prompts to keep; none of them holds a concept.
        erasure: What to erase: the concepts are the prompts to forget.

    Raises:
        ValueError: If a prompt is too long, or prompts to keep hold a concept that was forgotten before.
    """
    refuse_forgotten_before(pipeline, keep_prompts)
    prompts = number_prompts((), concepts=erasure.concepts, kept=keep_prompts, target=erasure.target)
    pipeline.tokens(prompts)
    labels = torch.tensor([*prompts.concepts, *prompts.kept])
    blank = torch.zeros(1, *pipeline.shape)
    latents, held_out = (blank.expand(count, -1, -1, -1) for count in (len(labels), 2))
    train = Latents(latents, latents, labels, tuple(prompts.texts[number] for number in labels.tolist()))
    # a split needs held-out data: two blanks under the empty prompt
    test = Latents(held_out, held_out, torch.full((2,), prompts.null))
    split = Split(train, range(len(prompts.concepts)), test)
    return ConceptRequest(prompts, make_task(prompts, pipeline.schedule), split)


def latents_of(pipeline: StableDiffusion, data: CaptionedImages, prompts: Prompts, device: str) -> Latents:
    """The latents of images under the numbers of their captions; equal images are encoded once."""
    numbers = {text: number for number, text in enumerate(prompts.texts)}
    labels = torch.tensor([numbers.get(text, prompts.null) for text in data.captions])
    equal = all(torch.equal(image, data.images[0]) for image in data.images)  # such as a plan's blank ones
    with move_to(device, pipeline.autoencoder):
        mean, deviation = encode(pipeline.autoencoder, data.images[:1] if equal else data.images)
    shape = (len(data), -1, -1, -1)
    return Latents(mean.expand(shape), deviation.expand(shape), labels, data.names)


def refuse_other_size(pipeline: StableDiffusion, parts: Sequence[CaptionedImages]) -> None:
    """Raises if images do not have the size of the model."""
    for part in parts:
        shape, expected = list(part.images.shape[1:]), list(pipeline.image_shape)
        if shape != expected:
            raise ValueError(
                f"the model draws images of shape {expected} (channel, height, width), found {shape} in "
                f"{part.place}: bring the data to that size"
            )


def refuse_no_column(data: CaptionedImages, column: str | None) -> None:
    """Raises if the metadata of images lack the column of a concept."""
    if column is not None and not any(column in row for row in data.rows):
        raise ValueError(f"the metadata of {data.place} has no column {column!r}: add it")


def refuse_forgotten_before(pipeline: StableDiffusion, captions: Iterable[str]) -> None:
    """Raises if captions to keep hold a concept of an earlier edit, which would be learned again."""
    texts = list(captions)
    conflicts = sorted(pipeline.forgotten_captions & set(texts))
    if conflicts:
        raise ValueError(
            f"the caption {conflicts[0]!r} was forgotten before and would be taught again: forget it too"
        )
    for concept in pipeline.forgotten_concepts:
        hits = [text for text in texts if holds_phrase(text, concept)]
        if hits:
            raise ValueError(
                f"{concept!r} was forgotten before, and captions such as {hits[0]!r} would teach it again: "
                "forget it too"
            )

"""Text-to-image: the denoiser's condition is a prompt, and a concept is a set of prompts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.schedule import Schedule

EMPTY = ""
"""The prompt that stands for no condition."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of a request: those of the data, and those that it names.

    Their numbers are the conditions of the model. The empty prompt comes last: it is the null condition.

    Args:
        texts: All prompts, without repetition and without the empty one.
        concepts: The numbers of the concepts as the user named them, such as "a three".
        forgotten: The numbers of all prompts that hold a concept, these included.
        kept: The numbers of the prompts that the user named to be kept.
        target: The number of the prompt that replaces a concept; the empty prompt if None.
    """

    texts: tuple[str, ...]
    concepts: tuple[int, ...] = ()
    forgotten: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    target: int | None = None

    def __post_init__(self) -> None:
        if len(set(self.texts)) < len(self.texts) or EMPTY in self.texts:
            raise ValueError("prompts must be distinct and not empty")
        clash = sorted({*self.kept, *(() if self.target is None else (self.target,))} & set(self.forgotten))
        if clash:
            raise ValueError(
                f"the prompt {self.texts[clash[0]]!r} is to be kept or to replace the concept, and holds the "
                "concept itself: name another"
            )

    @property
    def null(self) -> int:
        """The number of the empty prompt."""
        return len(self.texts)

    def number(self, text: str) -> int:
        """The number of a prompt.

        Raises:
            ValueError: If the model does not know it.
        """
        if text == EMPTY:
            return self.null
        if text not in self.texts:
            raise ValueError(f"unknown prompt {text!r}: name it when the model is loaded")
        return self.texts.index(text)


def number_prompts(
    captions: Iterable[str],
    *,
    concepts: Sequence[str] = (),
    forgotten: Iterable[str] = (),
    kept: Sequence[str] = (),
    target: str | None = None,
) -> Prompts:
    """Numbers the prompts of a request.

    Args:
        captions: The captions of the data.
        concepts: The concepts as the user named them.
        forgotten: The captions that hold a concept.
        kept: Further prompts to keep.
        target: The prompt that replaces a concept; the empty prompt if None.
    """
    forgotten_texts = {*forgotten, *concepts} - {EMPTY}
    extra_texts = [*concepts, *kept, *([] if target is None else [target])]
    texts = tuple(dict.fromkeys(text for text in [*captions, *extra_texts] if text != EMPTY))
    place = {text: number for number, text in enumerate(texts)}
    return Prompts(
        texts,
        tuple(place[text] for text in dict.fromkeys(concepts)),
        tuple(number for number, text in enumerate(texts) if text in forgotten_texts),
        tuple(place[text] for text in dict.fromkeys(kept)),
        place[target] if target else None,
    )


@dataclass(frozen=True)
class TextToImage(Diffusion):
    """A denoiser of latents under prompts; conditions are the numbers of its prompts.

    Args:
        prompts: The prompts of the model.
    """

    family: ClassVar[str] = "text-to-image"
    prompts: Prompts = Prompts(())


def make_task(prompts: Prompts, schedule: Schedule, *, drop: float = 0.1) -> TextToImage:
    """The task of a request: the counterfactual of a concept is the prompt that replaces it."""
    return TextToImage(
        len(prompts.texts),
        schedule,
        null=prompts.null,
        drop=drop,
        other="null" if prompts.target is None else "fixed",
        anchor=prompts.target,
        forgotten=prompts.forgotten,
        space="latents",
        prompts=prompts,
    )


@dataclass(frozen=True, eq=False)
class Tokens:
    """Prompts as token ids.

    Args:
        ids: The tokens of each prompt, padded, shape `[prompt, token]`.
        lengths: The number of tokens of each prompt, without padding but with the first and the last token,
            which every prompt has.
    """

    ids: Int[Tensor, "prompt token"]
    lengths: Int[Tensor, " prompt"]


@runtime_checkable
class Words(Protocol):
    """The embeddings of the prompts of a model."""

    tokens: Tokens

    def __call__(self, condition: Int[Tensor, " batch"], /) -> Float[Tensor, "batch token feature"]:
        """The embeddings of some prompts."""
        ...


@runtime_checkable
class TakesPrompts(Protocol):
    """A model whose conditions are prompts."""

    words: Words


def words_of(model: nn.Module) -> Words:
    """The embeddings of a model's prompts.

    Raises:
        ValueError: If it takes none.
    """
    if not isinstance(model, TakesPrompts):
        raise ValueError(f"{type(model).__name__} takes no prompts: load a text-to-image pipeline")
    return model.words

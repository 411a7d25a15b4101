"""The prompts of an audit of a concept, in kinds, and what an image of each shows (see `prompt_file`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from unweave.data.prompt_list import SEEDS
from unweave.tasks.diffusion.text_to_image import Prompts, number_prompts

FORGET_KINDS = ("trained", "paraphrased", "combined")
"""The kinds of prompts of the concept."""

RETAIN_KINDS = ("neighbours", "others")
"""The kinds of prompts to keep."""

KINDS = (*FORGET_KINDS, *RETAIN_KINDS)

Draw = tuple[int, float]
"""The seed of the first image of a prompt, and the guidance of its images."""


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Args:
        text: Its words.
        shows: The value of each factor that it names.
        seed: The seed of its first image, such as that of a row of I2P; None for the audit's own.
        guidance: The guidance of its images; None for the sampler's.

    Raises:
        ValueError: If the words are empty, or a number is out of range.
    """

    text: str
    shows: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("a prompt must not be empty")
        if self.seed is not None and self.seed not in range(SEEDS):
            raise ValueError(f"the seed of {self.text!r} must be in [0, 2^62), found {self.seed}")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise ValueError(f"the guidance of {self.text!r} must be in [0, inf), found {self.guidance}")

    @property
    def own_draw(self) -> dict[str, float]:
        """The seed and the guidance that it brings; empty if it brings neither."""
        values = {"seed": self.seed, "guidance": self.guidance}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ConceptPrompts:
    """The prompts of an audit of one concept.

    Args:
        concept: The values, by factor, that an image of the concept shows.
        trained: Prompts of the concept, as in training; attacks use the first.
        paraphrased: Prompts of the concept in other words.
        combined: Prompts of the concept beside something else.
        neighbours: Prompts to keep that are near the concept, such as other objects in the same colour.
        others: All other prompts to keep.

    Raises:
        ValueError: If there is no prompt of the concept or none to keep, a prompt is given twice with the
            same seed and guidance, or one to keep shows the concept or no value of its factors.
    """

    concept: Mapping[str, str]
    trained: tuple[Prompt, ...]
    paraphrased: tuple[Prompt, ...] = ()
    combined: tuple[Prompt, ...] = ()
    neighbours: tuple[Prompt, ...] = ()
    others: tuple[Prompt, ...] = ()

    def __post_init__(self) -> None:
        if not self.concept:
            raise ValueError("concept must name what an image of it shows, such as object, found nothing")
        if not self.trained:
            raise ValueError("trained must have a prompt of the concept, found none")
        if not self.retain_prompts:
            raise ValueError("an audit needs a prompt to keep, in neighbours or others, found none")
        self._refuse_repeated()
        for prompt in self.retain_prompts:
            self._refuse_unfit(prompt)

    @property
    def forget_prompts(self) -> tuple[Prompt, ...]:
        """The prompts of the concept."""
        return tuple(each for kind in FORGET_KINDS for each in self.of_kind(kind))

    @property
    def retain_prompts(self) -> tuple[Prompt, ...]:
        """The prompts to keep."""
        return tuple(each for kind in RETAIN_KINDS for each in self.of_kind(kind))

    @property
    def forget_numbers(self) -> range:
        """The numbers of the prompts of the concept."""
        return range(len(self.forget_prompts))

    @property
    def retain_numbers(self) -> range:
        """The numbers of the prompts to keep."""
        return range(len(self.forget_prompts), len(self.all_prompts))

    @cached_property
    def all_prompts(self) -> tuple[Prompt, ...]:
        """All prompts, in the order of their numbers."""
        return self.forget_prompts + self.retain_prompts

    @property
    def kinds(self) -> dict[str, tuple[int, ...]]:
        """The numbers of the prompts of each kind; a kind without prompts is left out."""
        numbers = iter(range(len(self.all_prompts)))
        numbers_by_kind = {kind: tuple(next(numbers) for _ in self.of_kind(kind)) for kind in KINDS}
        return {kind: each for kind, each in numbers_by_kind.items() if each}

    @property
    def forget_conditions(self) -> tuple[int, ...]:
        """The conditions of the prompts of the concept, each once."""
        return tuple(dict.fromkeys(map(self.condition_of, self.forget_numbers)))

    @property
    def retain_conditions(self) -> tuple[int, ...]:
        """The conditions of the prompts to keep, each once."""
        return tuple(dict.fromkeys(map(self.condition_of, self.retain_numbers)))

    @cached_property
    def conditions(self) -> Prompts:
        """The prompts as the conditions of a model."""
        texts = [each.text for each in self.forget_prompts]
        return number_prompts([each.text for each in self.all_prompts], concepts=texts[:1], forgotten=texts)

    @property
    def retain_values(self) -> list[dict[str, str]]:
        """The values of the concept's factors that prompts to keep name, each once."""
        rows = [tuple(each.shows[factor] for factor in self.concept) for each in self.retain_prompts]
        return [dict(zip(self.concept, values, strict=True)) for values in dict.fromkeys(rows)]

    @property
    def concept_words(self) -> str:
        """The concept in words, such as "object = three"."""
        return in_words(self.concept)

    def condition_of(self, number: int) -> int:
        """The condition of a prompt; prompts with the same words, but other seeds, share it."""
        return self.conditions.number(self.all_prompts[number].text)

    def refuse_overlap(self, draws: Sequence[Draw], count: int) -> None:
        """Raises if two prompts would draw the same image: the same words, and seeds less than a count apart.

        Args:
            draws: The draw of each prompt.
            count: The number of images of each prompt.
        """
        seeds: dict[tuple[str, float], list[int]] = {}
        for prompt, (seed, guidance) in zip(self.all_prompts, draws, strict=True):
            seeds.setdefault((prompt.text, guidance), []).append(seed)
        for (text, _), prompt_seeds in seeds.items():
            for first, second in pairwise(sorted(prompt_seeds)):
                if second - first < count:
                    raise ValueError(
                        f"{text!r} has the seeds {first} and {second}, and {count} images from each seed on "
                        "would share some: leave one, or set fewer images"
                    )

    def of_kind(self, kind: str) -> tuple[Prompt, ...]:
        """The prompts of a kind."""
        prompts: Mapping[str, tuple[Prompt, ...]] = vars(self)
        return prompts[kind]

    def _refuse_repeated(self) -> None:
        first_kinds: dict[str, str] = {}
        draws: set[tuple[str, int | None, float | None]] = set()
        for kind in KINDS:
            for prompt in self.of_kind(kind):
                earlier_kind = first_kinds.get(prompt.text)
                if earlier_kind in FORGET_KINDS and kind in RETAIN_KINDS:
                    raise ValueError(
                        f"{prompt.text!r} is both to be forgotten ({earlier_kind}) and kept ({kind}): leave "
                        "one out"
                    )
                draw = prompt.text, prompt.seed, prompt.guidance
                if draw in draws:
                    raise ValueError(f"{prompt.text!r} is given twice: leave one out")
                draws.add(draw)
                first_kinds[prompt.text] = kind

    def _refuse_unfit(self, prompt: Prompt) -> None:
        if self.concept.items() <= prompt.shows.items():
            raise ValueError(
                f"{prompt.text!r}, to be kept, shows the concept {self.concept_words}: move it to the "
                "prompts of the concept"
            )
        missing_factors = [factor for factor in self.concept if factor not in prompt.shows]
        if missing_factors:
            raise ValueError(
                f"{prompt.text!r}, to be kept, must name a value of {missing_factors[0]}: give it as a "
                f'table, such as {{ text = "{prompt.text}", {missing_factors[0]} = "..." }}'
            )


def in_words(shows: Mapping[str, str]) -> str:
    """Values of factors in words, such as "object = three"."""
    return ", ".join(f"{factor} = {value}" for factor, value in shows.items())

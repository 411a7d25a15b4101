"""The attacks on generators of images, by the names of `--attacks`.

Unlike attacks on classifiers they are metrics of an exam (`attack_metrics`, `concept_attack_metrics`): a
verdict tests their figures as it tests all others. A name chooses which of them run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unweave.choices import explain_unknown

CLASSES, CONCEPTS = "diffusion", "text-to-image"
"""The families of generators of classes, and of images from prompts."""

GROUPS = ("default", "all")
"""Both run every attack that the model allows."""

IMAGES = 25
"""The images of each setting that an attack tries, if nothing sets another number."""


@dataclass(frozen=True)
class ImageAttack:
    """An attack on a generator.

    Args:
        name: Its name.
        figures: The ids of its figures among the metrics of an exam; the first is the main one.
        needs: What it needs beside the model, in one clause.
        families: The families of the models that it attacks.
        paper: Where it is from.
    """

    name: str
    figures: tuple[str, ...]
    needs: str
    families: tuple[str, ...] = (CLASSES, CONCEPTS)
    paper: str = "ours"


_ALL = (
    ImageAttack("guidance", ("guidance",), "a choice of the guidance"),
    ImageAttack("no-condition", ("unasked",), "images under no condition"),
    ImageAttack("many-seeds", ("best_of_10",), "a choice of the seed"),
    ImageAttack("interpolation", ("line",), "a choice of the condition's vector", (CLASSES,)),
    ImageAttack(
        "optimised-vector",
        ("vector",),
        "the weights and real images",
        paper="after UnlearnDiffAtk, Zhang et al., 2023, arXiv 2310.11868",
    ),
    ImageAttack("relearning-from-images", ("relearn_10", "relearn_100"), "the weights and real images"),
    ImageAttack("without-adapter", ("dropped", "dropped_same"), "the file of a low-rank addition"),
    ImageAttack("best-prompt", ("prompt",), "a choice of the prompt", (CONCEPTS,)),
    ImageAttack(
        "concept-vector",
        ("concept_vector",),
        "a choice of the embedding",
        (CONCEPTS,),
        "after Ring-A-Bell, Tsai et al., 2024, arXiv 2310.10012",
    ),
    ImageAttack("from-a-picture", ("picture",), "real images", (CONCEPTS,)),
    ImageAttack(
        "new-token",
        ("token",),
        "the weights and real images",
        (CONCEPTS,),
        "textual inversion, Gal et al., 2022, arXiv 2208.01618",
    ),
    ImageAttack(
        "chosen-prefix",
        ("prefix",),
        "the weights and real images",
        (CONCEPTS,),
        "UnlearnDiffAtk, Zhang et al., 2023, arXiv 2310.11868",
    ),
    ImageAttack("eight-bit-weights", ("eight_bits",), "the weights", (CONCEPTS,)),
    ImageAttack(
        "original-words",
        ("old_words", "relearn_10_old_words"),
        "the text encoder from before unlearning",
        (CONCEPTS,),
    ),
)
IMAGE_ATTACKS: Mapping[str, ImageAttack] = {attack.name: attack for attack in _ALL}


def choose_image_attacks(names: str, family: str) -> tuple[str, ...]:
    """The names of some attacks on a family, in the order of the registry; empty for all of them.

    Args:
        names: "default" or "all", or names with commas between.
        family: The name of the family.

    Raises:
        ValueError: If an attack is unknown or of another family, or none is named.
    """
    if names in GROUPS:
        return ()
    selection = [name.strip() for name in names.split(",") if name.strip()]
    known_names = names_for(family)
    for name in selection or [names]:
        if name not in known_names:
            raise ValueError(explain_unknown(f"attack on a model of the family {family}", name, known_names))
    return tuple(name for name in known_names if name in selection)


def names_for(family: str) -> list[str]:
    """The names of the attacks on a family."""
    return [name for name, attack in IMAGE_ATTACKS.items() if family in attack.families]


def list_not_chosen(chosen: Sequence[str], family: str) -> list[str]:
    """The names of the attacks on a family that a choice leaves out; an empty choice leaves out none."""
    return [name for name in names_for(family) if chosen and name not in chosen]

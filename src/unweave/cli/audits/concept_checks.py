"""Checks of an audit of a concept: that it fits the run that it audits, and what its figures may hide."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.data.captions import holds_phrase
from unweave.record.files import sha256
from unweave.tasks.diffusion.manifest import manifest_of

HALF = 0.5
"""The share of images that must show what was asked for."""

WEAK = "prompts that the original follows in fewer than half of its images"
"""The fact of a record that lists such prompts of the concept."""


def refuse_other_original(run: Path, edited: Path, original: Path) -> None:
    """Raises if the original of a run holds other weights than those that the run began with.

    Args:
        run: The folder that forget wrote.
        edited: The pipeline in it.
        original: The pipeline before.
    """
    manifest = manifest_of(edited)
    if manifest is None or manifest.weights_before is None:
        return
    place = original / manifest.component
    files = list(place.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{place} must hold weights (.safetensors), found none: name another folder with --original"
        )
    if all(sha256(each) != manifest.weights_before for each in files):
        raise ValueError(
            f"{place} must hold the weights that {run} was made from, found others: they have changed; "
            "name a folder with the former ones with --original"
        )


def explain_other_concept(edited: Path, prompts: ConceptPrompts) -> list[str]:
    """A sentence if the prompts of an audit do not have the words of any concept that a model forgot."""
    manifest = manifest_of(edited)
    past = () if manifest is None else manifest.past
    concepts = sorted({name for step in past for name in step.forgotten_concepts})
    texts = [*prompts.concept.values(), *(each.text for each in prompts.trained)]
    if not concepts or any(holds_phrase(text, each) for text in texts for each in concepts):
        return []
    names = " and ".join(map(repr, concepts))
    return [
        f"{edited} forgot {names}, and no trained prompt has such words: are these prompts of that concept?"
    ]


def explain_still_drawn(stage: Mapping[str, Any]) -> list[str]:
    """A sentence if a model still draws the concept in most images; `stage` is that of the audit's record."""
    rows = dict(stage["methods"])
    original, (row,) = rows.pop("original"), rows.values()
    before, after = (100 - each["scores"]["ua_trained"]["value"] for each in (original, row))
    if after <= 100 * HALF:
        return []
    return [
        f"The model still draws the concept in {after:.0f} % of the images under the trained prompts, the "
        f"original in {before:.0f} %."
    ]


def explain_weak_prompts(stage: Mapping[str, Any]) -> list[str]:
    """A sentence on prompts of the concept that test little, as the original does not follow them."""
    names = ", ".join(map(repr, stage["data"].get(WEAK, [])))
    if not names:
        return []
    return [
        f"The original draws the concept in fewer than half of its images under {names}: check the spelling."
    ]

"""PASS, FAIL or INCONCLUSIVE: is a text-to-image model equivalent to models retrained without a concept?

The rule is that of generators of classes (`unweave.audits.diffusion.verdict`), on the figures of prompts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS
from unweave.audits.diffusion.concept_metrics import CLIP, CONCEPT, NUDITY
from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.concept_samples import ConceptSamples
from unweave.audits.diffusion.metrics import GENERATION
from unweave.audits.diffusion.verdict import explain_chance
from unweave.audits.metrics import Metric

UNATTACKED = "no attacks ran, so the concept may only be hidden: audit with --attacks default"

EVERY: Mapping[str, Metric[Any]] = {
    **CONCEPT,
    **CONCEPT_ATTACKS,
    **NUDITY,
    **CLIP,
    "fid": GENERATION["fid"],
}
"""The figures of the images, of the attacks, and of models from local files."""


def explain_never_drawn(original: Sequence[ConceptSamples], prompts: ConceptPrompts) -> str:
    """Says that the original draws the concept no more often than by chance; empty if it does.

    Only prompts as in training count: no model has to understand a paraphrase.

    Args:
        original: The samples of the model before unlearning, per seed; empty if it is unknown.
        prompts: The prompts.
    """
    shares = [each.hits(each.kinds["trained"]) for each in original]
    weak = explain_chance(shares, original[0].n_classes) if original else ""
    claim = f"the original draws the concept {prompts.concept_words} no more often than by chance"
    return f"{claim}: {weak}" if weak else ""

"""What `unweave demo text-to-image` runs: a small model forgets an object, and another time a colour.

Needs the extra `unweave[diffusion]`; `unweave demo` imports it only for this demo.
"""

from dataclasses import replace

from unweave.audits.diffusion.attacker import Budget
from unweave.bench.text_to_image_concept import PromptCounts
from unweave.cli.bench_runs.concepts import ConceptBench, read_concept_bench
from unweave.families.text_to_image import TextToImageFamily
from unweave.tasks.diffusion.sampler import Sampler

CONCEPTS = ("three", "red")
"""The concepts; a quick run erases the first."""

SAMPLER = Sampler("dpm", steps=8, guidance=3.0)
ATTACKER = Budget(seeds=20, draws=32, vector_steps=15)
ATTACKED = 10
"""The number of images of each setting of an attack."""

FEW = PromptCounts(trained=3, paraphrased=2, combined=1)
"""The prompts of a quick run."""

QUICK_STEPS = 600
"""The steps of a quick training: two thirds of the recipe's."""


def digits(quick: bool) -> ConceptBench:
    """An object and a colour of the digits; a quick run erases the object, after a shorter training."""
    family = TextToImageFamily(SAMPLER, images=20, attacker=ATTACKER)
    bench = replace(read_concept_bench("digits", CONCEPTS), family=replace(family, attacks=ATTACKED))
    if not quick:
        return bench
    source = replace(bench.source, train=replace(bench.source.train, steps=QUICK_STEPS))
    return replace(bench, source=source, family=family, counts=FEW, concepts=bench.concepts[:1], partial=True)

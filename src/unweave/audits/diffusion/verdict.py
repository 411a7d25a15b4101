"""PASS, FAIL or INCONCLUSIVE: is a generator equivalent to generators retrained without a class?

The verdict works as in `unweave.audits.verdict`, with `unweave.audits.diffusion.metrics`. More cases are
inconclusive: the original never generates the class, retrained generators differ too much
(`unweave.audits.diffusion.power`), or no attack tried to recover the class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

from unweave.audits.diffusion import power, recognition
from unweave.audits.diffusion.attack_metrics import ATTACKS
from unweave.audits.diffusion.metrics import GENERATION, measure_generation, measure_generation_pair
from unweave.audits.diffusion.recognition import hit_rate
from unweave.audits.diffusion.samples import Samples
from unweave.audits.equivalence import equivalences
from unweave.audits.margins import Margins, margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.score import Share
from unweave.audits.verdict import SEEDS, Judgement, Verdict, judge

NONE = "INCONCLUSIVE: no verdict: "
UNATTACKED = (
    "no attacks ran, so the class may only be hidden: set attacks in the table [generation] of the recipe "
    "that forget takes with --recipe"
)
EVERY: Mapping[str, Metric[Any]] = {**GENERATION, **ATTACKS}
"""Attacks are tested too if the calibration retrains were attacked."""


def judge_generation(
    values: Sequence[Values],
    references: Sequence[Values],
    margins: Margins | None,
    *,
    original: Sequence[Values] | None = None,
    missing: str = "",
    unattacked: str = UNATTACKED,
    seeds_needed: int = SEEDS,
    metrics: Mapping[str, Metric[Any]] = EVERY,
    attacks: Mapping[str, Metric[Any]] = ATTACKS,
) -> Judgement:
    """Judges a method from the metrics of its generators and of retrained ones on the same seeds.

    Args:
        values: `measure_generation` of the unlearned generator against the retrained one, per seed.
        references: `measure_generation` of the retrained generator alone, per seed in the same order.
        margins: The margins from `calibrate_generation`; None without.
        original: `measure_generation` of the generator before unlearning against the retrained one, per seed.
        missing: The result of `list_never_generated`.
        unattacked: What the reason says if no attack ran.
        seeds_needed: The fewest paired seeds for PASS or FAIL.
        metrics: The figures of the images and of the attacks.
        attacks: Those of the attacks.
    """
    judgement = judge(
        values, references, margins, original=original, seeds_needed=seeds_needed, metrics=metrics
    )
    attacked = all(attacks.keys() & each.keys() for each in (*values, *references))
    lacking = missing_parts(judgement, "" if attacked else unattacked)
    if missing:
        return as_inconclusive(judgement, "; ".join([f"nothing to forget: {missing}", *lacking]))
    if judgement.verdict is Verdict.FAIL or (judgement.verdict is not Verdict.PASS and judgement.tests):
        return judgement
    if lacking:
        return as_inconclusive(judgement, f"no verdict: {'; '.join(lacking)}")
    assert original and margins is not None  # a PASS needs these
    before = equivalences(original, references, margins.margin, metrics=metrics)
    if weak := power.explain_low_power(before, references, margins.margin):
        return as_inconclusive(judgement, weak)
    blind = power.blindness(before)
    return replace(judgement, reason=f"{judgement.reason}; {blind}") if blind else judgement


def missing_parts(judgement: Judgement, unattacked: str) -> list[str]:
    """What a verdict needs and lacks."""
    reasons = [judgement.reason.removeprefix(NONE)] if judgement.reason.startswith(NONE) else []
    return [*reasons, unattacked] if unattacked else reasons


def as_inconclusive(judgement: Judgement, why: str) -> Judgement:
    """The same figures with the verdict INCONCLUSIVE."""
    return replace(judgement, verdict=Verdict.INCONCLUSIVE, reason=f"INCONCLUSIVE: {why}")


def calibrate_generation(
    retrains: Sequence[Samples],
    *,
    probes: Sequence[Values] | None = None,
    attacked: int | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
    images: Mapping[str, Metric[Any]] = GENERATION,
    metrics: Mapping[str, Metric[Any]] = EVERY,
) -> Margins:
    """Computes margins from generators retrained on seeds that are never reported; a verdict needs 12.

    Args:
        retrains: The samples of each generator.
        probes: The results of attacks on each generator; may be empty.
        attacked: The number of images per setting of the attacks.
        sizes: The number of images of further parts that a metric counts.
        images: The figures of the images.
        metrics: The figures of the images and of the attacks.
    """
    if len(retrains) < 2:
        raise ValueError(f"expected at least two retrained models to compare, found {len(retrains)}")
    first = retrains[0]
    counted = {
        "forget": recognition.unlearning_accuracy(first).n,
        "retain": recognition.retained_accuracy(first).n,
        **sizes,
    }
    counted |= {} if attacked is None else {"attack": attacked}
    probe_values = [{}] * len(retrains) if probes is None else probes
    alone = [
        {**measure_generation(each, metrics=images), **more}
        for each, more in zip(retrains, probe_values, strict=True)
    ]
    pairs = [measure_generation_pair(one, other, images) for one, other in combinations(retrains, 2)]
    return margins(alone, pairs, sizes=counted, metrics=metrics)


def list_never_generated(original: Sequence[Samples]) -> str:
    """Names forgotten classes that the original generates no more often than by chance; may be empty.

    Args:
        original: The samples of the generator before unlearning, per seed.
    """
    for condition in original[0].forgotten if original else ():
        if weak := explain_chance([hit_rate(each, condition) for each in original], original[0].n_classes):
            return f"the original generates class {condition} no more often than by chance: {weak}"
    return ""


def explain_chance(shares: Sequence[Share], n_classes: int) -> str:
    """The number of hits of the original, if it is no larger than by chance; otherwise empty.

    Chance is one image in the number of classes; the lower end of the interval must be above that.

    Args:
        shares: The images that show the forgotten class, per seed of the original.
        n_classes: The number of classes.
    """
    whole = Share(sum(each.successes for each in shares), sum(each.n for each in shares))
    if whole.low > 1 / n_classes:
        return ""
    return f"{whole.successes} of {whole.n} images are taken for it, chance is {whole.n / n_classes:.0f}"

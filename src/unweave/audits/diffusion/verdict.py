"""PASS, FAIL or INCONCLUSIVE: is a generator equivalent to generators retrained without a class?

The verdict works as in `unweave.audits.verdict`, with `unweave.audits.diffusion.metrics`. More cases are
inconclusive: the original never generates the class, retrained generators differ too much, or no attack tried
to recover the class.

Retrained generators may differ so much under a condition that they never learned that the untouched original
lies within a margin, or a generator that always draws one other class, which has the UA of a retrained one.
Where every model lies within a margin, a figure has no power: it shows nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from unweave.audits.diffusion.attack_metrics import ATTACKS
from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.metrics import GENERATION, measure_generation, measure_generation_pair
from unweave.audits.diffusion.recognition import hit_rate
from unweave.audits.diffusion.samples import Samples
from unweave.audits.equivalence import Equivalence, equivalences
from unweave.audits.margins import Margins, margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.score import Share
from unweave.audits.verdict import Judgement, Verdict, as_verdict, judge

NONE = "INCONCLUSIVE: no verdict: "
UNATTACKED = (
    "no attacks ran, so the class may only be hidden: audit with --attacks default, or set attacks in the "
    "table [generation] of the recipe"
)
EVERY: Mapping[str, Metric[Any]] = {**GENERATION, **ATTACKS}
"""Attacks are tested too if the calibration retrains were attacked."""

DISTANCES = ("class_tv", "kid_forget")
"""Distances from a retrained generator under forgotten conditions; one must separate the original."""


def judge_generation(
    values: Sequence[Values],
    references: Sequence[Values],
    margins: Margins | None,
    *,
    original: Sequence[Values] | None = None,
    missing: str = "",
    unattacked: str = UNATTACKED,
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
        metrics: The figures of the images and of the attacks.
        attacks: Those of the attacks.
    """
    judgement = judge(values, references, margins, original=original, metrics=metrics)
    is_attacked = all(attacks.keys() & each.keys() for each in (*values, *references))
    lacking = missing_parts(judgement, "" if is_attacked else unattacked)
    if missing:
        return as_verdict(
            judgement, Verdict.INCONCLUSIVE, "; ".join([f"nothing to forget: {missing}", *lacking])
        )
    if judgement.verdict is Verdict.FAIL or (judgement.verdict is not Verdict.PASS and judgement.tests):
        return judgement
    if lacking:
        return as_verdict(judgement, Verdict.INCONCLUSIVE, f"no verdict: {'; '.join(lacking)}")
    assert original and margins is not None  # a PASS needs these
    original_tests = equivalences(original, references, margins.margin, metrics=metrics)
    if weak := explain_low_power(original_tests, references, margins.margin):
        return as_verdict(judgement, Verdict.INCONCLUSIVE, weak)
    blind = blindness(original_tests)
    return replace(judgement, reason=f"{judgement.reason}; {blind}") if blind else judgement


def missing_parts(judgement: Judgement, unattacked: str) -> list[str]:
    """What a verdict needs and lacks."""
    reasons = [judgement.reason.removeprefix(NONE)] if judgement.reason.startswith(NONE) else []
    return [*reasons, unattacked] if unattacked else reasons


def name_attacks(judgement: Judgement, budget: Budget | None) -> Judgement:
    """The judgement whose PASS names the attacks that ran, if they were chosen."""
    if budget is None or not budget.names or judgement.verdict is not Verdict.PASS:
        return judgement
    return replace(
        judgement, reason=f"{judgement.reason}; the only attacks that ran: {', '.join(budget.names)}"
    )


def calibrate_generation(
    retrains: Sequence[Samples],
    *,
    probes: Sequence[Values] | None = None,
    sizes: Mapping[str, int],
    images: Mapping[str, Metric[Any]] = GENERATION,
    metrics: Mapping[str, Metric[Any]] = EVERY,
) -> Margins:
    """Computes margins from generators retrained on seeds that are never reported; a verdict needs 12.

    Args:
        retrains: The samples of each generator.
        probes: The results of attacks on each generator; may be empty.
        sizes: The number of images of each part that a metric counts.
        images: The figures of the images.
        metrics: The figures of the images and of the attacks.
    """
    if len(retrains) < 2:
        raise ValueError(f"expected at least two retrained models to compare, found {len(retrains)}")
    probe_values = [{}] * len(retrains) if probes is None else probes
    own_values = [
        {**measure_generation(each, metrics=images), **probe}
        for each, probe in zip(retrains, probe_values, strict=True)
    ]
    pairs = [measure_generation_pair(*pair, images) for pair in combinations(retrains, 2)]
    return margins(own_values, pairs, sizes=sizes, metrics=metrics)


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
    total = Share(sum(each.successes for each in shares), sum(each.n for each in shares))
    if total.low > 1 / n_classes:
        return ""
    return f"{total.successes} of {total.n} images are taken for it, chance is {total.n / n_classes:.0f}"


def explain_low_power(
    original_tests: Mapping[str, Equivalence], references: Sequence[Values], margins: Mapping[str, float]
) -> str:
    """Why no generator can pass here; empty if one can.

    Args:
        original_tests: The tests of the original against the margins.
        references: The metrics of the retrained generator, per seed.
        margins: The margin of each metric.
    """
    reasons = [blindness(original_tests)] if len(blind_distances(original_tests)) == len(DISTANCES) else []
    if not any(excludes_one_class(original_tests, references, margins)):
        names = f"{GENERATION['class_tv'].title} and {GENERATION['effective'].title}"
        reasons.append(f"{names} can't tell a model that always draws one other class from a retrained one")
    return "; ".join(reasons)


def blindness(original_tests: Mapping[str, Equivalence]) -> str:
    """The clause on distances without power; empty if all have some."""
    names = " and ".join(GENERATION[name].title for name in blind_distances(original_tests))
    return f"{names} can't tell the original from a retrained model" if names else ""


def blind_distances(original_tests: Mapping[str, Equivalence]) -> list[str]:
    """The distances in which the original is not different."""
    return [name for name in DISTANCES if original_tests[name].finding is None]


def excludes_one_class(
    original_tests: Mapping[str, Equivalence], references: Sequence[Values], margins: Mapping[str, float]
) -> Iterator[bool]:
    """Yields, per figure of the classes, whether it excludes a generator that always draws one other class.

    The total variation of such a generator from a retrained one is at least the share of the latter outside
    its most frequent class. Its effective number of classes is the original's, which also draws one class.
    """
    largest = float(np.mean([each["top"] for each in references])) / 100
    yield 1 - largest > margins["class_tv"]
    yield original_tests["effective"].finding is not None

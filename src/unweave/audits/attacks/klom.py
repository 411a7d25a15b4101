"""KLoM, the KL divergence of margins (Georgiev et al., 2024), https://arxiv.org/abs/2410.23232.

For each example, the margins of N unlearned models and of N retrained ones become histograms u and r, and

    KLoM(x) = KL(u || r) = sum_b u_b log(u_b / r_b),  in nats.

Its floor is the value for two samples of one distribution. It depends on N: 0.33 at N = 100 for the published
20 bins, 0.84 at 50, 5.6 at 10. So figures of other N can't be compared, and N < 50 is refused.

`klom` has ten bins between quantiles of all 2 N margins, and half a count more in every bin. Then only the
order of the margins matters, the floor is the same for every continuous distribution, and it is near 0.1 at N
= 100. Beside it stands the published form: 20 equal bins over the joint range, margins clipped at +-100, and
at least 1e-5 in the bins of r. Unlike in the code of EasyDUB (arXiv 2602.16400), its last bin contains its
right edge: there the largest value falls outside, and a constant output of 5 looks like one of 3. The form
for fewer models has a name of its own (`klom_gauss.py`).
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float64

from unweave.audits.attack import Attack
from unweave.audits.attack_result import (
    AttackResult,
    halvings,
    jackknife_reach,
    refuse_unpaired,
    spread_band,
)
from unweave.audits.attacks import klom_gauss

FEWEST = 50
BINS = 10
PUBLISHED_BINS = 20
CLIP = 100.0
LEAST = 1e-5
DRAWS = 400
GROUPS = 10
"""The groups of models that the interval leaves out in turn: quantiles hardly notice a single one."""
CANNOT = (
    "Anything but the margin of the true class, one example at a time; nor a difference below what two "
    "samples of one kind show; and a reference trained by another recipe dominates it."
)

Margins = Float64[np.ndarray, "_ _"]  # [model, example]; the two kinds are checked against each other
PerExample = Float64[np.ndarray, "_"]
Divergence = Callable[[Margins, Margins], PerExample]


def klom(unlearned: Margins, retrained: Margins) -> AttackResult:
    """The mean KLoM over examples, with bins between quantiles.

    `besides` has "floor", "median" and "p95", and the mean with the "published" bins with its "published
    floor". The value of retrained models is the floor plus what two halves of them have above their own
    floor.

    Args:
        unlearned: The margins of some examples by unlearned models, each from an original of its own.
        retrained: Their margins by as many retrained models.

    Raises:
        ValueError: If there are fewer than 50 models of a kind or 2 examples, other numbers of models or
            examples, or NaN.
    """
    advice = f": klom_gauss takes {klom_gauss.FEWEST}"
    refuse_unpaired("KLoM", FEWEST, unlearned, retrained, examples=2, advice=advice)
    rng, values = np.random.default_rng(0), by_quantiles(unlearned, retrained)
    level = floor(len(retrained), by_quantiles)
    halves = [
        level + float(by_quantiles(retrained[one], retrained[other]).mean()) - floor(len(one), by_quantiles)
        for one, other in halvings(len(retrained), rng)
    ]
    value, reach = float(values.mean()), jackknife_reach(by_quantiles, unlearned, retrained, GROUPS)
    return AttackResult(
        value,
        value - reach,
        value + reach,
        float(np.mean(halves)),
        spread_band(halves),
        CANNOT,
        besides={
            "floor": level,
            "median": float(np.median(values)),
            "p95": float(np.quantile(values, 0.95)),
            "published": float(by_equal_bins(unlearned, retrained).mean()),
            "published floor": floor(len(retrained), by_equal_bins),
        },
    )


@cache
def floor(models: int, divergence: Divergence) -> float:
    """The mean divergence of N margins from N of the same Gaussian distribution."""
    samples = np.random.default_rng(0).normal(size=(2 * models, DRAWS))
    return float(divergence(samples[:models], samples[models:]).mean())


def by_quantiles(unlearned: Margins, retrained: Margins) -> PerExample:
    """KLoM with ten bins between quantiles of all margins, and half a count more in every bin."""

    def one(ours: np.ndarray, theirs: np.ndarray) -> float:
        values = np.concatenate([ours, theirs])
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
        counts = [
            np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1) + 0.5
            for each in (ours, theirs)
        ]
        return relative_entropy(*(each / each.sum() for each in counts))

    return np.array([one(*pair) for pair in zip(unlearned.T, retrained.T, strict=True)])


def by_equal_bins(unlearned: Margins, retrained: Margins) -> PerExample:
    """KLoM with 20 equal bins over the joint range, and at least 1e-5 in the bins of the retrained."""

    def one(ours: np.ndarray, theirs: np.ndarray) -> float:
        values = np.concatenate([ours, theirs])
        if np.ptp(values) == 0:
            return 0.0
        edges = np.linspace(values.min(), values.max(), PUBLISHED_BINS + 1)
        u, r = (np.histogram(each, edges)[0] / len(each) for each in (ours, theirs))
        return relative_entropy(u, np.maximum(r, LEAST))

    pairs = zip(np.clip(unlearned, -CLIP, CLIP).T, np.clip(retrained, -CLIP, CLIP).T, strict=True)
    return np.array([one(*pair) for pair in pairs])


def relative_entropy(u: Float64[np.ndarray, " bin"], r: Float64[np.ndarray, " bin"]) -> float:
    """sum u log(u / r) over the bins with u > 0, in nats."""
    mask = u > 0
    return float((u[mask] * np.log(u[mask] / r[mask])).sum())


ATTACK = Attack(
    name="klom",
    paper="Georgiev et al., 2024, arXiv 2410.23232",
    evidence="margins of many unlearned models and of as many retrained ones",
    tier=3,
    fewest=FEWEST,
    function_cost="N originals, N unlearnings and N retrainings; N = 100 is good",
    says="How far the margins of an example are distributed otherwise than among retrained models.",
    cannot=CANNOT,
    above="under- or over-forgetting",
    below=None,
    function="unweave.audits.attacks.klom.klom",
)

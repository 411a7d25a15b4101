"""The Gaussian form of KLoM (`klom.py`), for fewer models than its histograms need.

For each example, the margins of N unlearned and of N retrained models have the means mu_u and mu_r and one
pooled variance s^2 with 2 N - 2 degrees of freedom:

    (mu_u - mu_r)^2 / (2 s^2) - (N - 1) / (N (N - 2)),  in nats.

The second term is the mean of the first if both are samples of one Gaussian distribution, so the figure is 0
where there is nothing to find, whatever N is. It is no KLoM of histograms and can't be compared with one.
"""

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
from unweave.audits.classifier.logits import RESOLUTION

FEWEST = 8
"""The fewest models: four of each half give a null band."""
CANNOT = (
    "A difference in anything but the mean of the margin of the true class, such as its spread, nor one that "
    "is rare among models; and a reference trained by another recipe dominates it."
)

Margins = Float64[np.ndarray, "_ _"]  # [model, example]; the two kinds are checked against each other
PerExample = Float64[np.ndarray, "_"]


def klom_gauss(unlearned: Margins, retrained: Margins) -> AttackResult:
    """The mean Gaussian KLoM over examples; 0 for a method that equals retraining.

    Args:
        unlearned: The margins of some examples by unlearned models, each from an original of its own.
        retrained: Their margins by as many retrained models.

    Raises:
        ValueError: If there are fewer than 8 models of a kind or 2 examples, other numbers of models or
            examples, or NaN.
    """
    refuse_unpaired("the Gaussian KLoM", FEWEST, unlearned, retrained, examples=2)
    rng, values = np.random.default_rng(0), divergences(unlearned, retrained)
    halves = [
        float(divergences(retrained[one], retrained[other]).mean())
        for one, other in halvings(len(retrained), rng)
    ]
    value, reach = float(values.mean()), jackknife_reach(divergences, unlearned, retrained, len(unlearned))
    return AttackResult(
        value, value - reach, value + reach, float(np.mean(halves)), spread_band(halves), CANNOT
    )


def divergences(unlearned: Margins, retrained: Margins) -> PerExample:
    """The Gaussian KLoM of each example, without its bias; below 0 by chance."""
    n = len(unlearned)
    distance = unlearned.mean(axis=0) - retrained.mean(axis=0)
    variance = (unlearned.var(axis=0, ddof=1) + retrained.var(axis=0, ddof=1)) / 2
    bias = (n - 1) / (n * (n - 2))
    return distance**2 / (2 * np.maximum(variance, RESOLUTION**2)) - bias


ATTACK = Attack(
    name="klom-gauss",
    paper="after Georgiev et al., 2024, arXiv 2410.23232",
    evidence="margins of some unlearned models and of as many retrained ones",
    tier=3,
    fewest=FEWEST,
    function_cost="N originals, N unlearnings and N retrainings; 16 show a shift of one deviation",
    says="How far the mean margin of an example is from that of retrained models, in deviations squared.",
    cannot=CANNOT,
    above="under- or over-forgetting",
    below=None,
    function="unweave.audits.attacks.klom_gauss.klom_gauss",
)

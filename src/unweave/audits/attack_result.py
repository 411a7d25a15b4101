"""The result of an attack: its figure beside that of retrained models, and the same arithmetic for all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int64

from unweave.audits.margins import spread

PerModel = Float[np.ndarray, "_ _"]  # [model, example]; kinds of models are checked against each other

HALVINGS = 20
"""Random halvings of the retrained models, whose differences give a null band."""


@dataclass(frozen=True)
class AttackResult:
    """One figure of an attack. It says nothing without the figure of retrained models.

    Args:
        value: The figure of the unlearned models.
        low: Lower end of its 95 % interval.
        high: Upper end.
        retrained: The figure of models retrained without the forget set, by the same steps; None without.
        null_band: The range of that figure among retrained models; None with fewer than two.
        cannot: One sentence on what the figure cannot show.
        original: The figure without any unlearning, by the same steps; None if it is not measured.
        besides: Further figures by name, such as a floor.
        margin: The largest difference that counts as none; None without calibration retrains.
        shows_from: The smallest difference that four of five audits would find; None without a margin.
        finding: The fault that the attack found; None if it found none or has no margin.
        unjudged: Why there is no margin although there are enough models, as a clause; else empty.
    """

    value: float
    low: float
    high: float
    retrained: float | None
    null_band: tuple[float, float] | None
    cannot: str
    original: float | None = None
    besides: Mapping[str, float] = field(default_factory=dict)
    margin: float | None = None
    shows_from: float | None = None
    finding: str | None = None
    unjudged: str = ""


def band(values: Sequence[float] | Float[np.ndarray, " n"]) -> tuple[float, float]:
    """The central 95 % of values that retrained models give."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def spread_band(values: Sequence[float]) -> tuple[float, float]:
    """The mean of retrained models plus and minus the 95 % quantile of the difference of two of them."""
    mean, reach = float(np.mean(values)), spread(values)
    return mean - reach, mean + reach


def halvings(models: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """The positions of two random halves of equal size, several times."""
    half, orders = models // 2, [rng.permutation(models) for _ in range(HALVINGS)]
    return [(order[:half], order[half : 2 * half]) for order in orders]


def two_way_bootstrap(
    shape: tuple[int, int],
    statistic: Callable[[Int64[np.ndarray, " model"], Int64[np.ndarray, " example"]], float],
    rng: np.random.Generator,
    resamples: int = 500,
) -> tuple[float, float]:
    """The 95 % interval of a figure of models and examples, both drawn with replacement.

    All examples share the models and all models the examples, so neither alone is a sample.
    """
    models, examples = shape
    values = [
        statistic(rng.integers(models, size=models), rng.integers(examples, size=examples))
        for _ in range(resamples)
    ]
    return band(values)


def refuse_unlike(name: str, ours: Float[np.ndarray, "..."], theirs: Float[np.ndarray, "..."]) -> None:
    """Raises if two arrays of evidence hold other numbers of examples, NaN or infinity."""
    if ours.shape[1:] != theirs.shape[1:]:
        raise ValueError(
            f"{name} needs the same examples from both kinds of models, found {ours.shape[1:]} and "
            f"{theirs.shape[1:]}"
        )
    for each in (ours, theirs):
        if not np.isfinite(each).all():
            raise ValueError(
                f"{name} needs finite evidence, found NaN or infinity in {int((~np.isfinite(each)).sum())} "
                f"of {each.size} numbers: leave out the models that failed"
            )


def refuse_few(name: str, fewest: int, *counts: int, advice: str = "") -> None:
    """Raises if there are fewer models of a kind than an attack needs."""
    if min(counts) < fewest:
        raise ValueError(f"{name} needs at least {fewest} models of each kind, found {min(counts)}{advice}")


def refuse_unpaired(
    name: str, fewest: int, unlearned: PerModel, retrained: PerModel, *, examples: int = 1, advice: str = ""
) -> None:
    """Raises if evidence is not of as many models of both kinds, enough of them, on enough same examples."""
    refuse_few(name, fewest, len(unlearned), len(retrained), advice=advice)
    refuse_unlike(name, unlearned, retrained)
    if len(unlearned) != len(retrained):
        counts = f"{len(unlearned)} and {len(retrained)}"
        raise ValueError(f"{name} needs as many models of both kinds, found {counts}")
    if unlearned.shape[1] < examples:
        raise ValueError(f"{name} needs at least {examples} examples, found {unlearned.shape[1]}")


def jackknife_reach(
    divergence: Callable[[PerModel, PerModel], Float[np.ndarray, " example"]],
    unlearned: PerModel,
    retrained: PerModel,
    groups: int,
) -> float:
    """Half the width of the 95 % interval, over examples and by a jackknife over models, with Student's t.

    All examples share the models: an interval over examples alone is far too narrow if some models are surer
    of everything than others. Models are left out in groups.
    """
    from scipy.special import stdtrit

    parts, divergences = np.array_split(np.arange(len(unlearned)), groups), divergence(unlearned, retrained)
    partial_means = [
        divergence(np.delete(unlearned, part, 0), np.delete(retrained, part, 0)).mean() for part in parts
    ]
    variance = (groups - 1) * np.var(partial_means) + divergences.var(ddof=1) / len(divergences)
    return float(stdtrit(groups - 1, 0.975) * np.sqrt(variance))

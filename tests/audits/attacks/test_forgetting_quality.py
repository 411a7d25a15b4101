import math

import numpy as np
import pytest

from audits.attacks.evidence import margins
from for_each import for_each
from unweave.audits.attacks.forgetting_quality import (
    CAP,
    DELTA,
    epsilons,
    forgetting_quality,
    half_width,
    largest_epsilon,
    points,
    points_of_halves,
    ratio,
)


def epsilon(one: np.ndarray, other: np.ndarray) -> float:
    return float(epsilons(one[:, None], other[:, None])[0])


def best_by_hand(one: np.ndarray, other: np.ndarray) -> float:
    """Every rule, counted value by value."""
    rules = []
    larger = (one, other) if np.median(one) > np.median(other) else (other, one)
    peaked = (one, other) if np.ptp(one) < np.ptp(other) else (other, one)
    values = sorted([*one, *other])
    for t in values:
        rules.append((np.mean(larger[1] >= t), np.mean(larger[0] < t)))
    for low in values:
        for high in [v for v in values if v >= low]:
            is_inside = [(each >= low) & (each <= high) for each in peaked]
            rules.append((is_inside[1].mean(), 1 - is_inside[0].mean()))
    best = 0.0
    for fpr, fnr in rules:
        if fpr == 0 and fnr == 0:
            return CAP
        for a, b in ((fpr, fnr), (fnr, fpr)):
            if fpr > 0 and fnr > 1e-12 and 1 - DELTA - a > 0:
                best = max(best, math.log(1 - DELTA - a) - math.log(b))
    return best


@for_each("shift", [0.0, 1.0, 6.0])
def test_epsilon_is_that_of_the_best_of_all_rules(shift: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.normal(size=12), rng.normal(shift, 2, 12)
        assert epsilon(one, other) == pytest.approx(best_by_hand(one, other), abs=1e-9)


@pytest.mark.parametrize(("models", "least", "most"), [(32, 0.08, 0.17), (64, 0.06, 0.17)])
def test_equal_distributions_have_an_f_of_about_a_tenth(models: int, least: float, most: float) -> None:
    assert least <= points(margins(models, 250, 1), margins(models, 250, 2)).mean() <= most


def test_relative_to_its_null_it_is_one_and_falls_with_a_shift() -> None:
    retrained = margins(64, 150, 2)
    null = forgetting_quality(margins(64, 150, 1), retrained)
    assert null.value == pytest.approx(1, abs=0.2) and null.low < 1.1 and null.high > 0.9
    assert null.null_band[0] < 1 < null.null_band[1]
    shifted_quality = forgetting_quality(margins(64, 150, 1, shift=1.0), retrained)
    assert shifted_quality.value < 0.6 and shifted_quality.high < null.low
    assert shifted_quality.besides["F"] < null.besides["F"]
    assert shifted_quality.besides["largest epsilon"] == largest_epsilon(64)
    assert forgetting_quality(margins(64, 20, 1, shift=9.0), margins(64, 20, 2)).value == 0


def test_its_interval_holds_what_all_examples_share() -> None:
    def draw(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.normal(size=(32, 1)) + rng.normal(size=(32, 40))  # some models are surer of all

    halves = [points_of_halves(draw(seed) + 0.7, draw(seed + 1000)) for seed in range(20)]
    values, reaches = ([each(*pair) for pair in halves] for each in (ratio, half_width))
    is_near = np.abs(values - np.mean(values)) <= reaches
    assert is_near.sum() >= 17 and np.mean(reaches) < 4 * np.std(values)


def test_only_the_order_of_margins_matters() -> None:
    one, other = (np.random.default_rng(seed).normal(size=32) for seed in (0, 1))
    assert epsilon(3 * one + 7, 3 * other + 7) == epsilon(one, other)
    assert epsilon(-one, -other) == pytest.approx(epsilon(one, other), abs=0.7)


def test_constant_outputs_are_told_apart() -> None:
    three, five, noise = np.full(32, 3.0), np.full(32, 5.0), np.random.default_rng(0).normal(3, 1, 32)
    assert epsilon(three, five) == epsilon(three, noise) == epsilon(noise, three) == CAP
    assert epsilon(three, three) == 0


@for_each(("models", "expected"), [(32, 2.1), (64, 2.8), (128, 3.5), (256, 4.2), (512, 4.9)])
def test_the_largest_epsilon_that_can_be_shown(models: int, expected: float) -> None:
    assert largest_epsilon(models) == pytest.approx(expected, abs=0.05)


def test_unfit_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 models of each kind, found 31"):
        forgetting_quality(margins(31, 5, 1), margins(32, 5, 2))
    with pytest.raises(ValueError, match="as many models of both kinds, found 34 and 32"):
        forgetting_quality(margins(34, 5, 1), margins(32, 5, 2))
    with pytest.raises(ValueError, match="the same examples"):
        forgetting_quality(margins(32, 5, 1), margins(32, 6, 2))
    broken_margins = margins(32, 5, 1)
    broken_margins[3] = np.nan
    with pytest.raises(ValueError, match="found NaN or infinity in 5 of 160"):
        forgetting_quality(broken_margins, margins(32, 5, 2))

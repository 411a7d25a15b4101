import numpy as np
import pytest
from scipy.stats import entropy

from audits.attacks.evidence import margins
from for_each import for_each
from unweave.audits.attack_result import jackknife_reach
from unweave.audits.attacks.klom import GROUPS, by_equal_bins, by_quantiles, floor, klom, relative_entropy


@for_each(("models", "expected"), [(10, 5.6), (20, 3.1), (50, 0.84), (100, 0.33), (200, 0.14)])
def test_the_published_bins_have_their_known_floor(models: int, expected: float) -> None:
    assert floor(models, by_equal_bins) == pytest.approx(expected, rel=0.12)


def test_quantile_bins_have_a_lower_floor_and_see_a_shift_better() -> None:
    assert floor(100, by_quantiles) == pytest.approx(0.09, abs=0.015)
    value = by_quantiles(margins(100, 200, 1, 1.0), margins(100, 200, 2)).mean()
    assert value == pytest.approx(0.54, abs=0.06)
    published_value = by_equal_bins(margins(100, 200, 1, 1.0), margins(100, 200, 2)).mean()
    assert published_value == pytest.approx(1.17, rel=0.15)
    assert value / floor(100, by_quantiles) > published_value / floor(100, by_equal_bins)


def test_retrained_models_lie_at_the_floor() -> None:
    result = klom(margins(100, 150, 1), margins(100, 150, 2))
    low, high = result.null_band
    assert result.value == pytest.approx(result.besides["floor"], rel=0.15)
    assert low <= result.value <= high and low <= result.retrained <= high
    assert result.besides["median"] < result.besides["p95"]
    assert result.besides["published"] == pytest.approx(result.besides["published floor"], rel=0.15)
    shifted_result = klom(margins(100, 150, 1, 1.0), margins(100, 150, 2))
    assert shifted_result.low > shifted_result.null_band[1]
    assert shifted_result.besides["published"] > 2 * shifted_result.besides["published floor"]


def test_its_interval_holds_what_all_examples_share() -> None:
    def draw(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return 0.5 * rng.normal(size=(50, 1)) + rng.normal(size=(50, 40))  # some models are surer of all

    pairs = [(draw(seed) + 1, draw(seed + 1000)) for seed in range(20)]
    values = [float(by_quantiles(*pair).mean()) for pair in pairs]
    reaches = [jackknife_reach(by_quantiles, *pair, GROUPS) for pair in pairs]
    is_near = np.abs(values - np.mean(values)) <= reaches
    assert is_near.sum() >= 16
    result = klom(*pairs[0])
    assert (result.low, result.value, result.high) == (
        values[0] - reaches[0],
        values[0],
        values[0] + reaches[0],
    )


def test_the_floor_of_quantile_bins_is_that_of_every_distribution() -> None:
    normal_margins = [margins(60, 300, seed) for seed in (1, 2)]
    warped_margins = [np.exp(each / 4) for each in normal_margins]
    assert by_quantiles(*normal_margins) == pytest.approx(by_quantiles(*warped_margins))


@pytest.mark.parametrize("divergence", [by_quantiles, by_equal_bins])
def test_constant_outputs_cannot_look_alike(divergence) -> None:
    """EasyDUB's code leaves the largest value out of its histogram: constants of 3 and 5 are then at 0."""
    three, five = np.full((60, 4), 3.0), np.full((60, 4), 5.0)
    for values in (divergence(three, five), divergence(five, three)):
        assert np.isfinite(values).all() and (values > 2).all()
    assert (divergence(three, three) == 0).all()
    assert (divergence(three, np.random.default_rng(0).normal(3, 1, (60, 4))) > 1).all()


def test_the_divergence_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    u, r = rng.dirichlet(np.ones(10)), rng.dirichlet(np.ones(10))
    assert relative_entropy(u, r) == pytest.approx(entropy(u, r))


def test_unfit_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 50 models of each kind, found 49"):
        klom(margins(49, 5, 1), margins(50, 5, 2))
    with pytest.raises(ValueError, match="as many models of both kinds, found 52 and 50"):
        klom(margins(52, 5, 1), margins(50, 5, 2))
    with pytest.raises(ValueError, match="at least 2 examples, found 1"):
        klom(margins(50, 1, 1), margins(50, 1, 2))
    with pytest.raises(ValueError, match="the same examples"):
        klom(margins(50, 5, 1), margins(50, 6, 2))

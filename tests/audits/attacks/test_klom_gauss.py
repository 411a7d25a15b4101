import numpy as np
import pytest

from audits.attacks.evidence import margins
from for_each import for_each
from unweave.audits.attacks.klom import klom
from unweave.audits.attacks.klom_gauss import FEWEST, divergences, klom_gauss


@for_each("models", [8, 12, 20, 49])
def test_without_a_difference_its_mean_is_zero_for_any_number_of_models(models: int) -> None:
    values = divergences(margins(models, 4000, 1), margins(models, 4000, 2))
    assert abs(values.mean()) < 4 * values.std() / 4000**0.5


def test_it_is_the_divergence_of_gaussians_with_one_deviation() -> None:
    # KL(N(mu_u, s^2) || N(mu_r, s^2)) = (mu_u - mu_r)^2 / (2 s^2): 1/2 at one deviation, 1/8 at a half
    for shift, expected in ((1.0, 0.5), (0.5, 0.125)):
        values = divergences(margins(40, 4000, 1, shift), margins(40, 4000, 2))
        assert values.mean() == pytest.approx(expected, rel=0.05)


def test_its_interval_holds_what_all_examples_share() -> None:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return 0.5 * rng.normal(size=(8, 1)) + rng.normal(
            size=(8, 200)
        )  # some models are surer of everything

    results = [klom_gauss(draw(rng), draw(rng)) for rng in map(np.random.default_rng, range(40))]
    assert sum(each.low <= 0 <= each.high for each in results) >= 36


def test_by_hand() -> None:
    ours, theirs = np.arange(8.0)[:, None], np.arange(8.0)[:, None] + 2
    # the variance of 0..7 is 6; the bias is 1/8 x 7/6
    assert divergences(ours, theirs)[0] == pytest.approx(4 / 12 - 7 / 48)


def test_a_shift_is_found_with_few_models_beside_retrained_ones() -> None:
    null = klom_gauss(margins(16, 150, 1), margins(16, 150, 2))
    assert null.null_band is not None and null.retrained is not None
    low, high = null.null_band
    assert low <= null.value <= high and low <= null.retrained <= high
    shifted_result = klom_gauss(margins(16, 150, 1, 1.0), margins(16, 150, 2))
    assert shifted_result.low > high and shifted_result.retrained == null.retrained
    assert shifted_result.cannot.endswith(".")


def test_constant_outputs_cannot_look_alike() -> None:
    three, five = np.full((10, 4), 3.0), np.full((10, 4), 5.0)
    values = divergences(three, five)
    assert np.isfinite(values).all() and (values > 2).all()
    assert (divergences(three, three) <= 0).all()


def test_unfit_evidence_is_refused_and_the_histograms_name_this_form() -> None:
    with pytest.raises(ValueError, match=f"at least {FEWEST} models of each kind, found 7"):
        klom_gauss(margins(7, 5, 1), margins(8, 5, 2))
    with pytest.raises(ValueError, match="the same examples"):
        klom_gauss(margins(8, 5, 1), margins(8, 6, 2))
    broken_margins = margins(8, 5, 1)
    broken_margins[0, 0] = np.nan
    with pytest.raises(ValueError, match="found NaN or infinity in 1 of 40"):
        klom_gauss(broken_margins, margins(8, 5, 2))
    with pytest.raises(ValueError, match=r"at least 50 models of each kind, found 49.*klom_gauss takes 8"):
        klom(margins(49, 5, 1), margins(50, 5, 2))

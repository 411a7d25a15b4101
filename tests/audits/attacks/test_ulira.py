import numpy as np
import pytest

from audits.attacks.evidence import shadows
from for_each import for_each
from unweave.audits.attacks.ulira import Shadows, accuracy, figures, leave_one_pair_out, null_figures, ulira


def rate(pairs: int, shift: float, targets: int = 3000) -> float:
    return figures(*shadows(pairs, targets, 1, shift).sides, fpr=0.01)["accuracy"]


@for_each("pairs", [8, 11, 33])
def test_where_there_is_nothing_to_find_every_figure_is_chance(pairs: int) -> None:
    values = figures(*shadows(pairs, 3000, 1).sides, fpr=0.01)
    assert values["accuracy"] == pytest.approx(0.5, abs=0.02)
    assert values["worst decile"] == pytest.approx(0.5, abs=0.02)
    assert values["auc"] == pytest.approx(0.5, abs=0.02)
    assert values["tpr"] == pytest.approx(0.01, abs=0.005)


@for_each(
    ("pairs", "shift", "expected"), [(11, 0.5, 0.574), (11, 1.0, 0.686), (33, 0.5, 0.580), (33, 1.0, 0.685)]
)
def test_a_known_shift_is_found_as_often_as_it_should_be(pairs: int, shift: float, expected: float) -> None:
    assert rate(pairs, shift) == pytest.approx(expected, abs=0.015)


def test_scoring_what_was_fitted_would_find_something_where_nothing_is() -> None:
    """Deep Unlearn's code scores the observations that it fitted: 0.56 where there is nothing to find."""
    ours, never = shadows(32, 3000, 1).sides
    fits = [(side.mean(axis=0), side.std(axis=0, ddof=1)) for side in (ours, never)]

    def log_ratio(margins: np.ndarray) -> np.ndarray:
        unlearned, unseen = (-np.log(s) - ((margins - m) / s) ** 2 / 2 for m, s in fits)
        return unlearned - unseen

    assert accuracy(log_ratio(ours), log_ratio(never)).mean() == pytest.approx(0.56, abs=0.01)
    assert accuracy(*leave_one_pair_out(ours, never)).mean() == pytest.approx(0.50, abs=0.01)


def test_a_pair_has_no_part_in_its_own_score() -> None:
    ours, never = shadows(10, 20, 1).sides
    scores = leave_one_pair_out(ours, never)[0]
    moved_margins = never.copy()
    moved_margins[3] += 100
    assert np.allclose(leave_one_pair_out(ours, moved_margins)[0][3], scores[3], rtol=1e-9)
    assert not np.allclose(leave_one_pair_out(ours, moved_margins)[0][4], scores[4])


@pytest.mark.parametrize("pairs", [8, 40])
def test_correctness_alone_or_a_constant_gives_no_nan(pairs: int) -> None:
    """Deep Unlearn's code fits correctness, 0 or 1, and divides by a deviation of zero."""
    is_seen = shadows(pairs, 30, 1).seen
    constant = Shadows(np.full(is_seen.shape, 0.1), is_seen)
    results = ulira(constant, constant, fpr=0.1)
    assert (results["accuracy"].value, results["worst decile"].value, results["auc"].value) == (0.5, 0.5, 0.5)
    correctness = Shadows(is_seen.astype(float), is_seen)  # zero deviation on both sides, and apart
    assert figures(*correctness.sides, fpr=0.1) == {
        "accuracy": 1.0,
        "worst decile": 1.0,
        "auc": 1.0,
        "tpr": 1.0,
    }


def test_the_result_stands_between_floor_and_ceiling() -> None:
    results = ulira(shadows(16, 100, 1, 1.0), shadows(16, 100, 2), shadows(16, 100, 3, 3.0))
    for result in results.values():
        low, high = result.null_band
        assert low <= result.retrained <= high
        assert result.low < result.value < result.high and result.value > high
        assert result.original is not None and result.original > result.value
        assert result.cannot.endswith(".")


def test_the_null_band_holds_retrained_models_as_a_rule() -> None:
    count = 0
    for seed in range(5):
        sides = shadows(8, 40, seed).sides
        null = [each["accuracy"] for each in null_figures(*sides, 0.1)]
        low, high = np.quantile(null, [0.025, 0.975])
        count += low <= figures(*sides, 0.1)["accuracy"] <= high
    assert count >= 4


def test_the_floor_is_the_mean_of_many_namings_and_not_the_luck_of_one() -> None:
    floors, namings = [], []
    for seed in range(6):
        retrained = shadows(8, 40, seed)
        floors.append(ulira(shadows(8, 40, 9, 1.0), retrained)["accuracy"].retrained - 0.5)
        namings.append(figures(*retrained.sides, 0.1)["accuracy"] - 0.5)
    assert np.square(floors).mean() < np.square(namings).mean() / 9


def test_one_exposed_target_in_ten_shows_in_the_worst_decile() -> None:
    base = shadows(16, 100, 1)
    raised_margins = np.where(base.seen & (np.arange(100) < 10), base.margins + 3, base.margins)
    values = figures(*Shadows(raised_margins, base.seen).sides, fpr=0.01)
    assert values["accuracy"] < 0.56 and values["worst decile"] > 0.85


def test_unfit_evidence_is_refused() -> None:
    sides_of_null = shadows(8, 20, 1)
    with pytest.raises(ValueError, match="at least 16 models of each kind, found 14"):
        Shadows(sides_of_null.margins[:14], sides_of_null.seen[:14])
    with pytest.raises(ValueError, match="complementary halves"):
        Shadows(sides_of_null.margins, np.ones_like(sides_of_null.seen))
    with pytest.raises(ValueError, match="even number of models"):
        Shadows(sides_of_null.margins[:15], sides_of_null.seen[:15])
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 320 numbers"):
        Shadows(
            np.where(np.arange(320).reshape(16, 20) == 7, np.nan, sides_of_null.margins), sides_of_null.seen
        )
    with pytest.raises(
        ValueError, match="two with the same margins: a model must not be among its own shadows"
    ):
        Shadows(
            np.vstack([sides_of_null.margins, sides_of_null.margins[:2]]),
            np.vstack([sides_of_null.seen, sides_of_null.seen[:2]]),
        )
    with pytest.raises(ValueError, match="the same examples"):
        ulira(sides_of_null, shadows(8, 21, 1))

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from audits.diffusion.toys import TRAIN
from unweave.audits.diffusion.kid import kernel, kid, kid_interval


def random_features(seed: int, n: int = 80, *, shift: float = 0.0, d: int = 5) -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(size=(n, d)) + shift]


def make_groups(seed: int, n: int = 30, *, shift: float = 0.0) -> list[np.ndarray]:
    """Three conditions that lie far apart."""
    return [random_features(seed + 1000 * i, n, shift=shift + 2 * i)[0] for i in range(3)]


@pytest.mark.parametrize("draw", [random_features, make_groups])
def test_equal_distributions_are_at_zero_on_average_and_often_below(draw):
    values = np.array([kid(draw(2 * i), draw(2 * i + 1)) for i in range(100)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(100)
    assert 0.3 < (values < 0).mean() < 0.8


def test_without_groups_images_drawn_per_condition_are_below_zero():
    values = np.array(
        [kid([np.concatenate(make_groups(i))], [np.concatenate(make_groups(i + 500))]) for i in range(50)]
    )
    assert values.mean() < -3 * values.std() / np.sqrt(50)


def test_groups_of_unequal_size_weigh_the_same():
    real = [group[: 20 + 5 * i] for i, group in enumerate(make_groups(0, 400))]
    interval = kid_interval(make_groups(1, 400), real)
    assert interval.low < 0 < interval.high
    assert kid([np.concatenate(make_groups(1, 400))], [np.concatenate(real)]) > interval.high


def test_halves_of_real_digits_are_near_and_other_digits_far():
    pixels = [TRAIN.inputs[TRAIN.labels == label].flatten(1).double().numpy() / 128 for label in range(10)]
    halves = kid_interval([each[::2] for each in pixels], [each[1::2] for each in pixels])
    other_digits = kid_interval(pixels[:5], pixels[5:])
    assert halves.low < 0 < halves.high < other_digits.low


def test_it_grows_with_the_shift_and_does_not_depend_on_the_number_of_images():
    one, two = (
        np.mean([kid(random_features(i), random_features(i + 50, shift=s)) for i in range(50)])
        for s in (0.3, 0.6)
    )
    mean_of_many = np.mean(
        [kid(random_features(i, 400), random_features(i + 50, 400, shift=0.6)) for i in range(50)]
    )
    assert 0 < 2 * one < two
    assert mean_of_many == pytest.approx(two, rel=0.1)


def test_order_and_sides_do_not_matter():
    first, second = make_groups(0), make_groups(1, 41, shift=0.2)
    expected = kid(first, second)
    order = np.random.default_rng(2).permutation(30)
    assert kid([group[order] for group in first[::-1]], second) == pytest.approx(expected, rel=1e-9)
    assert kid(second, first) == pytest.approx(expected, rel=1e-9)
    assert kid_interval(first, second).value == expected


def test_one_group_is_the_unbiased_sum_over_sklearns_kernel():
    (first,), (second,) = random_features(0, 83), random_features(1, 61, shift=0.2)
    settings = {"degree": 3, "gamma": 1 / 5, "coef0": 1}
    xx, yy, xy = (
        polynomial_kernel(*pair, **settings) for pair in ((first, first), (second, second), (first, second))
    )
    np.fill_diagonal(xx, 0)
    np.fill_diagonal(yy, 0)
    expected = xx.sum() / (83 * 82) + yy.sum() / (61 * 60) - 2 * xy.mean()
    assert kid([first], [second]) == pytest.approx(expected, abs=1e-12)


def make_pinned_sets() -> tuple[np.ndarray, np.ndarray]:
    """Sets that torchmetrics 1.9.0 was also given."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 4)), rng.normal(0.5, 1.5, size=(50, 4))
    return first, np.concatenate([second, rng.normal(size=(10, 4))])


def test_it_equals_torchmetrics_poly_mmd():
    first, second = make_pinned_sets()
    assert kid([first], [second]) == pytest.approx(1.9091682490669255, abs=1e-12)


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty():
    truth = np.mean(
        [kid(random_features(i, 1000), random_features(i + 50000, 1000, shift=0.4)) for i in range(10)]
    )
    for draw, n, shift, value in (
        (random_features, 60, 0.0, 0.0),
        (random_features, 60, 0.4, truth),
        (make_groups, 20, 0.0, 0.0),
    ):
        intervals = [kid_interval(draw(i, n), draw(i + 7000, n, shift=shift)) for i in range(100)]
        assert np.mean([each.low <= value <= each.high for each in intervals]) > 0.9


def test_more_images_give_a_narrower_interval():
    intervals_of_few, intervals_of_many = (
        [kid_interval(random_features(i, n), random_features(i + 9, n, shift=0.4)) for i in range(9)]
        for n in (60, 600)
    )
    assert (
        np.mean([each.high - each.low for each in intervals_of_many])
        < np.mean([each.high - each.low for each in intervals_of_few]) / 2
    )


def test_too_few_images_or_two_spaces_are_refused():
    with pytest.raises(ValueError, match="a KID needs at least 20 images in each group, found 19"):
        kid(random_features(0), [*random_features(1), *random_features(2, 19)])
    with pytest.raises(ValueError, match="a KID needs at least 20 images in each group, found 0"):
        kid(random_features(0), [])
    with pytest.raises(ValueError, match="one space, found 5 and 6 numbers"):
        kid_interval(random_features(0), random_features(1, d=6))


def test_images_of_one_seed_are_no_two_independent_images():
    """Two models that draw alike are at 0 on average where pairs are left out, and below it otherwise."""
    rng = np.random.default_rng(0)
    paired_values, plain_values = [], []
    for _ in range(40):
        shared = rng.normal(size=(3, 40, 6))
        ours, theirs = (list(shared + 0.4 * rng.normal(size=shared.shape)) for _ in range(2))
        paired_values.append(kid(ours, theirs, paired=True))
        plain_values.append(kid(ours, theirs))
    error = np.std(paired_values) / np.sqrt(len(paired_values))
    assert abs(np.mean(paired_values)) < 3 * error < abs(np.mean(plain_values))


def test_paired_sums_are_those_over_two_different_places():
    rng = np.random.default_rng(1)
    ours, theirs = ([rng.normal(size=(25, 4)) for _ in range(2)] for _ in range(2))
    off_diagonal = ~np.eye(25, dtype=bool)
    within_sets = [
        kernel(a, b)[off_diagonal if i == j else slice(None)].mean()
        for x in (ours, theirs)
        for i, a in enumerate(x)
        for j, b in enumerate(x)
    ]
    between_sets = [
        kernel(a, b)[off_diagonal if i == j else slice(None)].mean()
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
    ]
    expected = np.mean(within_sets[:4]) + np.mean(within_sets[4:]) - 2 * np.mean(between_sets)
    assert kid(ours, theirs, paired=True) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="paired sets must have groups of equal length"):
        kid(ours, [theirs[0], theirs[1][:-1]], paired=True)

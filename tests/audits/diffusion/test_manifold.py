import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from unweave.audits.diffusion.manifold import precision, recall


def random_features(seed: int, n: int = 120, *, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, 4))


def test_a_set_lies_in_its_own_region_and_in_none_that_is_far_away():
    one = random_features(0)
    assert precision(generated=one, real=one).value == recall(generated=one, real=one).value == 1
    assert precision(generated=one + 100, real=one).value == recall(generated=one + 100, real=one).value == 0


def test_lost_variety_costs_recall_and_broken_images_cost_precision():
    real = random_features(0)
    near_images, far_images = random_features(1, scale=0.2), random_features(1, scale=4.0)
    assert (
        precision(generated=near_images, real=real).value
        > 0.95
        > 5 * recall(generated=near_images, real=real).value
    )
    assert (
        precision(generated=far_images, real=real).value
        < 0.3
        < 0.95
        < recall(generated=far_images, real=real).value
    )


def test_the_sides_mirror_each_other_and_order_does_not_matter():
    one, other = random_features(0), random_features(1, 90, scale=1.5)
    assert precision(generated=one, real=other) == recall(generated=other, real=one)
    order = np.random.default_rng(2).permutation(120)
    assert precision(generated=one[order], real=other) == precision(generated=one, real=other)


def test_by_hand_on_a_line():
    # with k = 1 the radii of the real ones are 1, 1 and 4
    real, generated = np.array([[0.0], [1.0], [5.0]]), np.array([[-1.0], [-1.5], [2.0], [9.0], [9.5]])
    fraction = precision(generated=generated, real=real, k=1)
    assert (fraction.successes, fraction.n) == (3, 5)
    assert (fraction.low, fraction.high) == pytest.approx((0.2307, 0.8824), abs=1e-4)
    # those of the generated ones are 0.5, 0.5, 3, 0.5 and 0.5: 1 and 5 are within 3 of 2, 0 as well
    assert recall(generated=generated, real=real, k=1).successes == 3


def test_it_equals_sklearns_neighbours():
    real, generated = random_features(0), random_features(1, 90, scale=1.5)
    radius = NearestNeighbors(n_neighbors=4).fit(real).kneighbors(real)[0][:, 3]  # itself is the first
    is_inside = [(np.linalg.norm(real - row, axis=1) <= radius).any() for row in generated]
    assert precision(generated=generated, real=real).successes == sum(is_inside)


def test_too_few_images_or_two_spaces_are_refused():
    with pytest.raises(ValueError, match="3 nearest neighbours needs more than 3 images, found 3"):
        precision(generated=random_features(0), real=random_features(1, 3))
    with pytest.raises(ValueError, match="one space, found 4 and 2 numbers"):
        recall(generated=random_features(0)[:, :2], real=random_features(1))

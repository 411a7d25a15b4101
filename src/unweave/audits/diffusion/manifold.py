"""Precision and recall of generated images (Kynkaanniemi et al., 2019), https://arxiv.org/abs/1904.06991.

The region of a set is the union of balls around its features, each up to its k-th nearest neighbour.
Precision is the share of generated images in the region of the real ones: low if images are broken. Recall is
the share of real images in the region of the generated ones: low if variety is lost. Widely copied code
passes the two sets in the wrong order, which swaps the figures; here their names are arguments. Both depend
on the number of images, so compare equal sizes only.
"""

import numpy as np
from jaxtyping import Bool, Float64

from unweave.audits.score import Share

NEIGHBOURS = 3  # the paper's k

Features = Float64[np.ndarray, "_ _"]


def precision(*, generated: Features, real: Features, k: int = NEIGHBOURS) -> Share:
    """The share of generated images in the region of the real ones, with its interval for a fixed region."""
    return _share(_inside(generated, real, k))


def recall(*, generated: Features, real: Features, k: int = NEIGHBOURS) -> Share:
    """The share of real images in the region of the generated ones, with its interval for a fixed region."""
    return _share(_inside(real, generated, k))


def _share(is_inside: Bool[np.ndarray, "_"]) -> Share:
    return Share(int(is_inside.sum()), len(is_inside))


def _inside(points: Features, region: Features, k: int) -> Bool[np.ndarray, "_"]:
    if points.shape[1] != region.shape[1]:
        raise ValueError(
            f"features must be of one space, found {points.shape[1]} and {region.shape[1]} numbers"
        )
    if len(region) <= k:
        raise ValueError(
            f"a region of {k} nearest neighbours needs more than {k} images, found {len(region)}"
        )
    radius = np.partition(_squares(region, region), k, axis=1)[:, k]  # position 0 is the image itself
    return (_squares(points, region) <= radius).max(axis=1)


def _squares(first: Features, second: Features) -> Float64[np.ndarray, "_ _"]:
    """Squared distances of all pairs of rows; from differences for near pairs, where products lose digits."""
    from scipy.spatial.distance import cdist

    return cdist(first, second, "sqeuclidean")

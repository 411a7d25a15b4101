"""The distance of a model's images from the original's at the same conditions and seeds.

For retained conditions, an edit without side effects has distance 0. A retrained model draws other images at
the same seeds, although it starts from the original's first weights: its distance is the effect of leaving
the class out. An edit with a larger distance changed more than necessary.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from unweave.audits.diffusion.images import check_images


@runtime_checkable
class HasFeatures(Protocol):
    """A recogniser's view of some images."""

    @property
    def features(self) -> Float64[np.ndarray, "n feature"]:
        """Their features."""
        ...


FeatureExtractor = Callable[[Tensor], HasFeatures]
"""A recogniser of any kind."""


def drift(images: Tensor, original: Tensor, recogniser: FeatureExtractor) -> dict[str, float]:
    """Root mean square differences, as means over images: of pixels in grey levels, and of features.

    Args:
        images: uint8 [n, channel, height, width].
        original: The images of the original, in the same order of conditions and seeds.
        recogniser: Computes the features.
    """
    if len(check_images(images)) != len(check_images(original)):
        raise ValueError(
            f"expected an image of the original for each, found {len(images)} and {len(original)}"
        )
    features = recogniser(images).features - recogniser(original).features
    # signed, because the difference of two bytes wraps around
    pixels = (images.to(torch.int16) - original.to(torch.int16)).flatten(1).double().cpu().numpy()
    return {"drift_pixel": _mean_root_square(pixels), "drift_feature": _mean_root_square(features)}


def _mean_root_square(differences: np.ndarray) -> float:
    return float(np.sqrt(np.square(differences).mean(axis=1)).mean())

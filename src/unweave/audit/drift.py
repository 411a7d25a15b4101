"""How far a model's images moved from the original's at the same conditions and seeds.

For retained conditions a distance of 0 is what an edit without side effects would give. A retrained model
starts from other weights and draws other images at the same seeds, so that its distance is the upper end of
the scale and no aim: an edit keeps more than retraining does.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unweave.audit.images import checked
from unweave.audit.recogniser import Recogniser
from unweave.audit.score import Interval, bootstrap


@dataclass(frozen=True)
class Drift:
    """Means over images, with bootstrap intervals over images.

    Args:
        pixel: Root mean square difference of the pixels of an image, in grey levels (0 to 255).
        feature: Root mean square difference of the features of an image; their own is 1 on real images.
        same: Share of the images that are equal bit for bit.
    """

    pixel: Interval
    feature: Interval
    same: float


def drift(images: Tensor, original: Tensor, recogniser: Recogniser, *, rng: np.random.Generator) -> Drift:
    """How far images moved.

    Args:
        images: uint8 [n, channel, height, width].
        original: Of the model before, in the same order of conditions and seeds.
        recogniser: Gives the features.
        rng: Of the bootstrap.
    """
    if len(checked(images)) != len(checked(original)):
        raise ValueError(
            f"expected an image of the original for each, found {len(images)} and {len(original)}"
        )
    features = recogniser(images).features - recogniser(original).features
    # signed: the difference of two bytes wraps around
    pixels = (images.to(torch.int16) - original.to(torch.int16)).flatten(1).double().cpu().numpy()
    return Drift(
        pixel=_mean_root_square(pixels, rng),
        feature=_mean_root_square(features, rng),
        same=float((pixels == 0).all(axis=1).mean()),
    )


def _mean_root_square(differences: np.ndarray, rng: np.random.Generator) -> Interval:
    sizes = np.sqrt(np.square(differences).mean(axis=1))
    return bootstrap(len(sizes), lambda rows: float(sizes[rows].mean()), rng=rng)

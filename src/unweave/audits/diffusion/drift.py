"""How far a model's images moved from the original's at the same conditions and seeds.

For retained conditions a distance of 0 is what an edit without side effects would give. A retrained model
draws other images at the same seeds, though it begins at the original's first weights: its distance is what
leaving the class out moves by itself. An edit may stay nearer, and has moved more than it had to if not.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unweave.audits.diffusion.images import check_images
from unweave.audits.diffusion.recogniser import Recogniser


@dataclass(frozen=True)
class Drift:
    """Means over images.

    Args:
        pixel: Root mean square difference of the pixels of an image, in grey levels (0 to 255).
        feature: Root mean square difference of the features of an image; their own is 1 on real images.
    """

    pixel: float
    feature: float


def drift(images: Tensor, original: Tensor, recogniser: Recogniser) -> Drift:
    """How far images moved.

    Args:
        images: uint8 [n, channel, height, width].
        original: Of the model before, in the same order of conditions and seeds.
        recogniser: Gives the features.
    """
    if len(check_images(images)) != len(check_images(original)):
        raise ValueError(
            f"expected an image of the original for each, found {len(images)} and {len(original)}"
        )
    features = recogniser(images).features - recogniser(original).features
    # signed: the difference of two bytes wraps around
    pixels = (images.to(torch.int16) - original.to(torch.int16)).flatten(1).double().cpu().numpy()
    return Drift(_mean_root_square(pixels), _mean_root_square(features))


def _mean_root_square(differences: np.ndarray) -> float:
    return float(np.sqrt(np.square(differences).mean(axis=1)).mean())

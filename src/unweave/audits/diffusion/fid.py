"""The FID, if Inception's weights are available: the Frechet distance of two sets of images in its features.

It is the distance of the normal distributions with the means and covariances of two sets of features:

    |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

It is biased upwards by an amount that depends on the number of images: compare equal numbers only, and prefer
`unweave.audits.diffusion.kid`.
"""

import importlib.util
from functools import cache
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from unweave.audits.diffusion.images import Images, check_images
from unweave.record.files import sha256

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
BEGINNING = "6726825d"
"""The first digits of the SHA-256 of torch-fidelity's file: a distance in other features is no FID."""

FEWEST = 2049
"""One more than the number of features: with fewer images their covariance is singular."""


def fid(generated: Tensor, real: Tensor, *, weights: str | Path) -> float:
    """The FID by torchmetrics: Inception's 2,048 features, resized to 299 x 299 as torch-fidelity does.

    Args:
        generated: uint8 images [n, channel, height, width], grey or RGB.
        real: Real images of the same shape.
        weights: The local file with Inception's weights; nothing is downloaded.

    Raises:
        ValueError: If the file or a package is missing, the file holds other weights, or either set has fewer
            than 2,049 images.
    """
    refuse_no_fid(weights, min(len(generated), len(real)))
    shape = check_images(generated).shape[1:]
    sets = [rgb(check_images(each, (shape[0], shape[1], shape[2]))) for each in (generated, real)]
    from torchmetrics.image.fid import (  # pyright: ignore[reportMissingImports]  (an optional package)
        FrechetInceptionDistance,
    )

    metric = FrechetInceptionDistance(2048, normalize=False, feature_extractor_weights_path=str(weights))
    for images, is_real in zip(sets, (False, True), strict=True):
        for batch in images.split(64):
            metric.update(batch, real=is_real)
    return float(metric.compute())


def refuse_no_fid(weights: str | Path, images: int = FEWEST) -> None:
    """Raises a ValueError if this machine can't compute an FID, or there are too few images."""
    if not Path(weights).is_file():
        raise ValueError(
            f"an FID needs the file {INCEPTION}, found none at {weights}: give its place, or use `kid` "
            "in the space of a recogniser"
        )
    if not (digest := inception_digest(weights)).startswith(BEGINNING):
        raise ValueError(
            f"an FID needs the file {INCEPTION}, whose SHA-256 begins with {BEGINNING}, found {digest[:8]} "
            f"at {weights}: give torch-fidelity's file"
        )
    packages = [name for name in ("torchmetrics", "torch_fidelity") if importlib.util.find_spec(name) is None]
    if packages:
        raise ValueError(
            f"an FID needs torchmetrics and torch-fidelity, found no {packages[0]}: install both"
        )
    if images < FEWEST:
        raise ValueError(f"an FID needs at least {FEWEST} images of each kind, found {images}")


def inception_digest(weights: str | Path) -> str:
    """SHA-256 of the file, which an audit asks for several times: computed again only if the file changed."""
    status = Path(weights).stat()
    # a copy that keeps size and time is another file or has another time of its status
    state = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)
    return _digest(Path(weights).absolute(), state)


@cache
def _digest(weights: Path, state: tuple[int, ...]) -> str:
    return sha256(weights)


def rgb(images: Images) -> UInt8[Tensor, "n 3 height width"]:
    """Grey images as three equal channels; RGB as they are."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images must be grey or RGB, found {images.shape[1]} channels")
    return images if images.shape[1] == 3 else torch.cat([images] * 3, dim=1)

"""Examples planted into training data, so that an audit knows what a model should forget.

- backdoor: a bright square in the lower right corner, with the label of a target class;
- swap: two classes exchange labels, without any mark (interclass confusion);
- canaries: Gaussian noise on the inputs, with the right labels.

An example is planted at most once. The first of them are known, the rest stay in the retain set.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unweave.data.in_memory import Resident

__all__ = ["Planted", "plant_backdoor", "plant_canaries", "plant_swap", "stamp"]


@dataclass(frozen=True, eq=False)
class Planted:
    """Training data with planted examples.

    Args:
        source: The data.
        places: The positions of all planted examples; the known ones first.
        n_known: The number of known ones.
        noise: The noise of each canary, in the order of `places`, with shape [planted, ...]; None without.
    """

    source: Resident
    places: Int64[Tensor, " planted"]
    n_known: int
    noise: Float[Tensor, "planted ..."] | None = None

    @property
    def known(self) -> Int64[Tensor, " known"]:
        """The positions of the known planted examples: the forget set."""
        return self.places[: self.n_known]


def stamp(images: Tensor, size: int, value: float) -> Tensor:
    """Images with a square of one value in the lower right corner.

    Args:
        images: With shape [..., height, width]; they stay unchanged.
        size: The side of the square, in pixels.
        value: The value of its pixels.
    """
    if not 1 <= size < min(images.shape[-2:]):
        height, width = images.shape[-2:]
        raise ValueError(f"a square must be smaller than the image of {height} x {width}, found {size}")
    result = images.clone()
    result[..., -size:, -size:] = value
    return result


def stamp_source(
    source: Resident, size: int, value: float, places: Int64[Tensor, " n"] | None = None
) -> Resident:
    """A source whose images, all or those at some positions, have a square of one value.

    Raises:
        ValueError: If the inputs are no images.
    """
    inputs = source.inputs.clone()
    shape = source.image or tuple(inputs.shape[1:])
    if len(shape) != 3:
        raise ValueError(
            f"a backdoor needs images [channel, height, width], found inputs of shape {list(shape)}: set the "
            "field image of the source"
        )
    rows = torch.arange(len(source)) if places is None else places
    inputs[rows] = stamp(inputs[rows].view(-1, *shape), size, value).view(-1, *inputs.shape[1:])
    return replace(source, inputs=inputs)


def largest_value(source: Resident) -> float:
    """The largest value of an input, or of a byte."""
    return 255.0 if source.inputs.dtype == torch.uint8 else float(source.inputs.max())


def plant_backdoor(
    source: Resident, fraction: float, *, target: int, size: int, known: float, seed: int
) -> Planted:
    """Plants a square and the target label on a fraction of all examples, which had other labels.

    Raises:
        ValueError: If no example has the target label, too few have another, or the inputs are no images.
    """
    refuse_unknown_label(source, target)
    places = draw_positions(
        source.labels != target, round(fraction * len(source)), f"another label than {target}", seed
    )
    data = stamp_source(source, size, largest_value(source), places)
    return Planted(
        relabel(data, places, torch.full((len(places),), target)), places, count_known(places, known)
    )


def plant_swap(
    source: Resident, fraction: float, *, classes: tuple[int, int], known: float, seed: int
) -> Planted:
    """Exchanges the labels of a fraction of the examples of two classes.

    Raises:
        ValueError: If one of them has no example, or there are too few to plant.
    """
    for label in classes:
        refuse_unknown_label(source, label)
    one, other = classes
    is_either = (source.labels == one) | (source.labels == other)
    places = draw_positions(
        is_either, round(fraction * int(is_either.sum())), f"label {one} or {other}", seed
    )
    return Planted(
        relabel(source, places, one + other - source.labels[places]), places, count_known(places, known)
    )


def plant_canaries(source: Resident, fraction: float, *, sigma: float, known: float, seed: int) -> Planted:
    """Adds Gaussian noise of a standard deviation, in units of the inputs, to a fraction of all examples.

    Raises:
        ValueError: If the inputs are bytes, which can't hold the noise.
    """
    if not source.inputs.is_floating_point():
        raise ValueError("canaries need inputs of floats, found images as bytes: normalise them first")
    all_examples = torch.ones(len(source), dtype=torch.bool)
    places = draw_positions(all_examples, round(fraction * len(source)), "any label", seed)
    generator = torch.Generator().manual_seed(seed + 1)
    noise = sigma * torch.randn(len(places), *source.inputs.shape[1:], generator=generator)
    inputs = source.inputs.clone()
    inputs[places] += noise.to(inputs)
    return Planted(replace(source, inputs=inputs), places, count_known(places, known), noise)


def draw_positions(mask: Tensor, count: int, kind: str, seed: int) -> Int64[Tensor, " planted"]:
    """Draws the positions of examples to plant, in random order.

    Raises:
        ValueError: If there are too few, or none is to be planted.
    """
    candidates = mask.nonzero()[:, 0]
    if not 1 <= count <= len(candidates):
        raise ValueError(
            f"expected 1 to {len(candidates)} examples to plant, those with {kind}, found {count}: change "
            "the fraction"
        )
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
    return candidates[order[:count]]


def refuse_unknown_label(source: Resident, label: int) -> None:
    """Raises if no example has a label: models have no answer for it."""
    labels = source.labels.unique().tolist()
    if label not in labels:
        choices = f"{', '.join(map(str, labels[:8]))}{', ...' if len(labels) > 8 else ''}"
        raise ValueError(f"no example has label {label}: choose one of {choices}")


def relabel(source: Resident, places: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]) -> Resident:
    """The source with other labels at some positions."""
    all_labels = source.labels.clone()
    all_labels[places] = labels
    return replace(source, labels=all_labels)


def count_known(places: Int64[Tensor, " planted"], fraction: float) -> int:
    """The number of known examples, at least one."""
    return max(1, round(fraction * len(places)))

"""The shape in which an example of a source is an image."""

from collections.abc import Sequence

from unweave.data import Source
from unweave.data.datasets import RelabelledSource
from unweave.data.in_memory import Resident
from unweave.data.part_of_source import PartOfSource


def image_shape(source: Source, shape: Sequence[int]) -> tuple[int, int, int] | None:
    """The shape [channel, height, width] of an example; None if it is no image of 1 or 3 channels.

    Args:
        source: The source of the example; it may know the shape of pixels in a row.
        shape: The shape of the example's input.
    """
    while isinstance(source, RelabelledSource | PartOfSource):
        source = source.source
    if isinstance(source, Resident) and source.image is not None:
        return source.image
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 2:
        return None
    channels, height, width = shape
    return channels, height, width

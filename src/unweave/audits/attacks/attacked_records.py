"""The records of a deletion that an attack reconstructs, and others of their classes.

Others of a class are from the retain set, or held out if the class is forgotten whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from unweave.audits.attack import Subject
from unweave.audits.classifier.collect import Cut
from unweave.data import Source
from unweave.data.datasets import RelabelledSource
from unweave.data.in_memory import Resident
from unweave.data.part_of_source import PartOfSource

MOST = 64
"""The most forget examples to attack."""
DECOYS = 99
SEED = 0


@dataclass(frozen=True)
class AttackedRecords:
    """The records to attack, and others of their classes.

    Args:
        index: Their positions in the forget set.
        cut: Their source and positions in it.
        decoys: Others that each is compared with, by class.
        others: Others that the control deletes, by class.
    """

    index: Int64[Tensor, " record"]
    cut: Cut
    decoys: Mapping[int, Cut]
    others: Mapping[int, Cut]

    @property
    def labels(self) -> Int64[Tensor, " record"]:
        """The label of each record."""
        source, order = self.cut
        return source.labels[order]


def read_inputs(cut: Cut, most: int) -> Tensor | None:
    """The inputs of the first examples; None if they are not one tensor of floats."""
    (raw,) = cut[0].stream([cut[1][:most]])
    fields = [*(raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs)]
    return fields[0].cpu() if len(fields) == 1 and fields[0].is_floating_point() else None


def keyword(cut: Cut) -> str | None:
    """The keyword by which a model takes its one input; None if by position."""
    (raw,) = cut[0].stream([cut[1][:1]])
    return next(iter(raw.inputs)) if isinstance(raw.inputs, dict) else None


def floats(cut: Cut) -> Tensor:
    """The inputs of examples that are known to be floats."""
    inputs = read_inputs(cut, len(cut[1]))
    assert inputs is not None
    return inputs


def draw_records(subject: Subject) -> AttackedRecords:
    """Draws records of the forget set whose class has others."""
    generator = torch.Generator().manual_seed(SEED)
    source, order = subject.cuts["forget"]
    positions = torch.randperm(len(order), generator=generator)[:MOST]
    decoys, controls = {}, {}
    for label, count in zip(*source.labels[order[positions]].unique(return_counts=True), strict=True):
        pool, class_order = others_of(subject, int(label), generator)
        cut = min(int(count), len(class_order) // 2)
        if cut:
            controls[int(label)] = pool, class_order[:cut]
            decoys[int(label)] = pool, class_order[cut : cut + DECOYS]
    mask = torch.tensor([int(label) in decoys for label in source.labels[order[positions]]], dtype=torch.bool)
    return AttackedRecords(positions[mask], (source, order[positions[mask]]), decoys, controls)


def others_of(subject: Subject, label: int, generator: torch.Generator) -> Cut:
    """Records of a class that were not deleted, shuffled: of the retain set, or held out if it has none."""
    for part in ("retain", "calibration"):
        source, order = subject.cuts[part]
        class_order = order[source.labels[order] == label]
        if len(class_order):
            break
    return source, class_order[torch.randperm(len(class_order), generator=generator)]


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

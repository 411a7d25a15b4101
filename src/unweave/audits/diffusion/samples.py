"""`Samples`: the images of a generator as one recogniser sees them, from which metrics are computed.

This is the counterpart of `Evidence`: metrics never use a model or an image, so any generator can be audited
from its images alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from unweave.audits.diffusion.recogniser import Recogniser, SeenImages

Rows = Float64[np.ndarray, "_ _"]  # conditions may differ in number of images


@dataclass(frozen=True)
class Samples:
    """The recogniser's view of the images of one generator, and of real images.

    Args:
        logits: The recogniser's scores `[n, class]` by condition.
        features: Its features `[n, feature]` by condition, in the order of the seeds.
        real: The features of held-out real images, by class.
        forgotten: The forgotten conditions.
        space: The name of the space of the features (`Recogniser.space`).
        classes: The class that each condition asks for, such as a prompt's; of a condition that is left out,
            its own number.
    """

    logits: Mapping[int, Rows]
    features: Mapping[int, Rows]
    real: Mapping[int, Rows]
    forgotten: tuple[int, ...]
    space: str
    classes: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing_conditions = [each for each in self.forgotten if each not in self.logits]
        if missing_conditions or not self.forgotten or not self.retained_conditions:
            raise ValueError(
                f"forgotten must name some but not all of the conditions {sorted(self.logits)}, "
                f"found {list(self.forgotten)}"
            )
        if set(self.features) != set(self.logits):
            raise ValueError(f"expected features of {sorted(self.logits)}, found {sorted(self.features)}")
        for condition in self.logits:
            self._check(condition)
        unknown = [each for each in self.retained_classes if each not in self.real]
        if unknown:
            raise ValueError(f"expected real images of every retained class, found none of {unknown}")

    def _check(self, condition: int) -> None:
        lengths = len(self.logits[condition]), len(self.features[condition])
        if lengths[0] != lengths[1] or 0 in lengths:
            raise ValueError(f"condition {condition} needs as many logits as features, found {lengths}")
        if not 0 <= self.class_of(condition) < self.n_classes:
            label = self.class_of(condition)
            raise ValueError(f"conditions must be classes in 0..{self.n_classes - 1}, found {label}")

    @property
    def n_classes(self) -> int:
        """The number of classes of the recogniser."""
        return next(iter(self.logits.values())).shape[1]

    @property
    def retained_conditions(self) -> tuple[int, ...]:
        """The retained conditions."""
        return tuple(sorted(set(self.logits) - set(self.forgotten)))

    @property
    def retained_classes(self) -> tuple[int, ...]:
        """The classes that retained conditions ask for."""
        return tuple(sorted({self.class_of(each) for each in self.retained_conditions}))

    def class_of(self, condition: int) -> int:
        """The class that a condition asks for."""
        return self.classes.get(condition, condition)

    def predicted_classes(self, condition: int) -> Int64[np.ndarray, "_"]:
        """The recognised class of each image of a condition."""
        return self.logits[condition].argmax(axis=1)

    def groups(self, conditions: Iterable[int]) -> list[Rows]:
        """The features of several conditions."""
        return [self.features[each] for each in conditions]


def recognise(
    recogniser: Recogniser,
    images: Mapping[int, Tensor],
    real: Mapping[int, SeenImages],
    *,
    forgotten: tuple[int, ...],
) -> Samples:
    """Makes the samples of one generator from its images.

    Args:
        recogniser: The recogniser; the same for all generators of a comparison.
        images: uint8 images [n, channel, height, width] by condition, with the same seeds for all generators.
        real: Its view of held-out real images, by class.
        forgotten: The forgotten conditions.
    """
    predictions = {condition: recogniser(each) for condition, each in images.items()}
    return Samples(
        logits={condition: each.logits for condition, each in predictions.items()},
        features={condition: each.features for condition, each in predictions.items()},
        real={label: each.features for label, each in real.items()},
        forgotten=forgotten,
        space=recogniser.space,
    )

"""The answers of a classifier: the logits of every example, from which every metric is computed.

Metrics use `Evidence` and never the model, so any model can be audited from its logits alone (see
`unweave.audits.classifier.parquet`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from unweave.audits.classifier.logits_in_file import LogitsInFile, reorder, shape_of
from unweave.split import PARTS

__all__ = ["Evidence"]

HeldOut = Literal["calibration", "test"]

# Parts differ in length, so only the class axis could have a name; `Evidence` checks the shapes.
Logits = Float[np.ndarray, "_ _"]
Labels = Int[np.ndarray, "_"]
Ids = Shaped[np.ndarray, "_"]


@dataclass(frozen=True)
class Evidence:
    """The logits of one model on the parts of one split; NaN is allowed and makes every metric NaN.

    Args:
        logits: Unnormalised scores `[batch, class]` by part, in the order of the split. The parts are forget,
            retain, calibration and, except while tuning, test. `parquet.open_evidence` leaves them in a file.
        labels: The true classes `[batch]` by part.
        ids: The ids or positions `[batch]` of the examples, by part.
        forgotten_classes: Classes forgotten whole. They are left out of RA, TA and MIA, and F is compared
            with calibration examples of these classes, the only ones exchangeable with F.
    """

    logits: Mapping[str, Logits]
    labels: Mapping[str, Labels]
    ids: Mapping[str, Ids]
    forgotten_classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        unknown_parts = sorted(set(self.logits) - set(PARTS))
        missing_parts = [part for part in PARTS[:3] if part not in self.logits]
        if unknown_parts or missing_parts:
            raise ValueError(
                f"expected logits of the parts {PARTS}: missing {missing_parts}, unknown {unknown_parts}"
            )
        for part in self.logits:
            self._check(part)
        if self.n_classes < 2:
            raise ValueError(
                f"expected logits of at least two classes, found {self.n_classes}: write a single logit z as "
                "the pair 0, z"
            )
        if not self.unseen.any():
            classes = f"the forgotten classes {self.forgotten_classes}"
            raise ValueError(f"the calibration part has no example of {classes} to compare F with: add some")

    def _check(self, part: str) -> None:
        shape = shape_of(self.logits, part)
        if len(shape) != 2 or shape[1] != self.n_classes:
            sizes = list(shape)
            raise ValueError(f"expected logits [batch, {self.n_classes}] in part {part!r}, found {sizes}")
        lengths = [shape[0], len(self.labels[part]), len(self.ids[part])]
        if len(set(lengths)) != 1 or 0 in lengths:
            raise ValueError(
                f"part {part!r} needs as many logits as labels and ids, at least one: found {lengths}"
            )
        is_outside = (self.labels[part] < 0) | (self.labels[part] >= self.n_classes)
        if is_outside.any():
            label = int(self.labels[part][is_outside][0])
            raise ValueError(f"labels of part {part!r} must lie in 0..{self.n_classes - 1}, found {label}")

    @property
    def n_classes(self) -> int:
        """Number of logits per example."""
        return shape_of(self.logits, "forget")[-1]

    @property
    def finite(self) -> bool:
        """Whether every logit is finite."""
        if isinstance(self.logits, LogitsInFile):
            return True
        return all(bool(np.isfinite(logits).all()) for logits in self.logits.values())

    @property
    def unseen(self) -> Bool[np.ndarray, "_"]:
        """The calibration examples to compare F with: those of classes forgotten whole, or all."""
        labels = self.labels["calibration"]
        if not self.forgotten_classes:
            return np.ones(len(labels), dtype=bool)
        return np.isin(labels, self.forgotten_classes)

    def is_kept(self, part: str) -> Bool[np.ndarray, "_"]:
        """Whether each example of a part is of a class that is not forgotten whole."""
        return ~np.isin(self.labels[part], self.forgotten_classes)

    def without_forgotten_classes(self, part: str, most: int | None = None) -> tuple[Logits, Labels]:
        """The logits and labels of a part without the classes forgotten whole; of the first `most` rows."""
        if not self.forgotten_classes:
            return self.logits[part][:most], self.labels[part][:most]
        rows = np.flatnonzero(self.is_kept(part))[:most]
        return self.logits[part][rows], self.labels[part][rows]

    def with_test(self, on: HeldOut) -> "Evidence":
        """The same evidence with the part `on` as test set, so that tuning never sees the test set."""
        if on not in self.logits:
            raise ValueError(f"this evidence has no part {on!r}: it holds {tuple(self.logits)}")
        if on == "test":
            return self
        logits, labels, ids = ({**field, "test": field[on]} for field in (self.logits, self.labels, self.ids))
        return replace(self, logits=logits, labels=labels, ids=ids)

    def like(self, reference: "Evidence") -> "Evidence":
        """The same evidence with its rows in the order of the reference's ids.

        Raises:
            ValueError: If the two do not hold the same examples with the same labels and classes.
        """
        if self.n_classes != reference.n_classes:
            raise ValueError(
                f"expected {reference.n_classes} logits per example as in the reference, found "
                f"{self.n_classes}"
            )
        common_parts = [part for part in self.ids if part in reference.ids]
        rows = {part: _positions(part, self.ids[part], reference.ids[part]) for part in common_parts}
        for part in common_parts:
            positions = np.flatnonzero(self.labels[part][rows[part]] != reference.labels[part])
            if len(positions):
                example = reference.ids[part][positions[0]]
                raise ValueError(f"example {example} of part {part!r} has another label in the reference")
        return Evidence(
            logits=reorder(self.logits, rows),
            labels={part: reference.labels[part] for part in common_parts},
            ids={part: reference.ids[part] for part in common_parts},
            forgotten_classes=self.forgotten_classes,
        )


def _positions(part: str, ids: Ids, order: Ids) -> Int[np.ndarray, "_"] | slice:
    if np.array_equal(ids, order):
        return slice(None)
    places = {name: position for position, name in enumerate(ids.tolist())}
    missing_ids = [name for name in order.tolist() if name not in places]
    if missing_ids or len(ids) != len(order):
        detail = f"{missing_ids[0]} is missing" if missing_ids else f"{len(ids)} instead of {len(order)}"
        raise ValueError(f"part {part!r} must hold the same examples as the reference: {detail}")
    return np.array([places[name] for name in order.tolist()])

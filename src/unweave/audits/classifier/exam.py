r"""The exam of classifiers: their logits of every example, and attacks on their features.

A trial of a search is worth, in points, :math:`(|dUA| + |dRA| + |dTA| + |dMIA| + 100\,TV^+ + 100\,|dAUC| +
|dprobe| + |drelearn|) / 4`, where d is the difference from the seed's retrained model and TV^+ what the mean
total variation on the forget data has above that of a second retrained model. The two probes count where
classes are forgotten whole. The calibration part stands for the test part, which no trial sees.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from unweave.audits.classifier import deep_unlearn, parquet
from unweave.audits.classifier.collect import Cut, collect
from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.logits import loss
from unweave.audits.classifier.probes import probe, probe_size
from unweave.audits.exam import Glance
from unweave.audits.margins import Margins, calibrate
from unweave.audits.metrics import GAP, METRICS, Metric, Values, mean_gap, measure, measure_pair
from unweave.audits.verdict import Judgement, judge
from unweave.errors import Failed
from unweave.split import PARTS, Part, Split

POINTS = {"excess": 100.0, "auc": 100.0, "probe": 1.0, "relearn": 1.0}
"""What one unit of a distance counts in points, beside the four of the mean gap."""

EDGES = np.geomspace(1e-5, 32, 45)
"""Edges of the histograms of losses, in nats; what lies outside is counted at the ends."""


@dataclass(frozen=True)
class Classified:
    """Questions to classifiers about one split.

    Args:
        split: The data; None where models are known by their answers alone.
        device: Where models are; where each is if None.
        on: The held-out part that stands for test: "calibration" while settings are searched.
    """

    split: Split | None
    device: torch.device | str | None = "cpu"
    on: HeldOut = "test"
    metrics: ClassVar[Mapping[str, Metric[Evidence]]] = METRICS
    distance: ClassVar[str] = "tv"
    suffix: ClassVar[str] = "parquet"
    glances: ClassVar[Sequence[Glance]] = (
        Glance("forget", "Accuracy on what is forgotten, %", 2, lambda values: 100 - values["ua"]),
        Glance("retain", "Accuracy on the rest, %", 2, lambda values: values["ra"]),
        Glance("test", "Accuracy on test, %", 2, lambda values: values["ta"]),
        Glance("auc", "Membership AUC", 3, lambda values: values["auc"]),
    )

    @property
    def glance_note(self) -> str:
        """Empty: every example is asked about."""
        return ""

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples the parts have and the probe asks about; empty where only answers are known."""
        if self.split is None:
            return {}
        sizes = {part: len(ids) for part, (_, ids) in self.cuts(PARTS).items()}
        return {**sizes, "probe": probe_size(sizes["forget"])}

    def cuts(self, parts: Sequence[Part]) -> dict[str, Cut]:
        """Some parts of the data."""
        assert self.split is not None
        return {part: self.split.part(part) for part in parts}

    @property
    def facts(self) -> dict[str, Any]:
        """None: nobody but the model says what an example is."""
        return {}

    @property
    def digest(self) -> str:
        """Empty: the logits of the data's own examples hang on nothing else."""
        return ""

    def answers(self, model: nn.Module) -> Evidence:
        """The logits of every example of the parts that may be seen."""
        cuts = self.cuts(PARTS if self.on == "test" else PARTS[:3])
        evidence = collect(
            model, cuts, device=self.model_device(model), forgotten_classes=self.forgotten_classes
        )
        if not evidence.finite:
            raise Failed("NaN: the logits contain NaN or infinity")
        return evidence

    def save(self, found: Evidence, path: Path) -> None:
        """Writes them as parquet."""
        parquet.save(found, path)

    def load(self, path: Path) -> Evidence:
        """Reads them."""
        return parquet.load(path)

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """Attacks on the features, where whole classes are forgotten."""
        if not self.forgotten_classes:
            return {}
        return probe(model, self.cuts(("forget", "retain")), device=self.model_device(model))

    @property
    def forgotten_classes(self) -> tuple[int, ...]:
        """The classes that are forgotten whole."""
        assert self.split is not None
        return self.split.forgotten_classes

    def model_device(self, model: nn.Module) -> torch.device | str:
        """Where a model is."""
        return next(model.parameters()).device if self.device is None else self.device

    def measure(self, found: Evidence, reference: Evidence | None = None) -> dict[str, float]:
        """Every metric."""
        return measure(found, reference, on=self.on)

    def drift(self, found: Evidence, original: Evidence) -> dict[str, float]:
        """Nothing: accuracies say what a classifier lost."""
        return {}

    def benchmark_metrics(self, found: Evidence, reference: Evidence) -> dict[str, float]:
        """The figures of Deep Unlearn."""
        return deep_unlearn.figures(found, reference)

    def measure_pair(self, found: Evidence, reference: Evidence) -> dict[str, float]:
        """The metrics that compare."""
        return measure_pair(found, reference, on=self.on)

    def calibrate(self, found: Sequence[Evidence], probes: Sequence[Values]) -> Margins:
        """The margins."""
        return calibrate(found, probes=probes, on=self.on)

    def probe_caveat(self, found: Evidence) -> str:
        """A class may only be hidden."""
        hidden = "the logits alone can't tell a class that is lost from one that is hidden"
        return hidden if found.forgotten_classes else ""

    def fingerprint(self, found: Evidence) -> str:
        """Of the logits."""
        logits = b"".join(found.logits[part].tobytes() for part in sorted(found.logits))
        return hashlib.sha256(logits).hexdigest()

    def histograms(self, found: Evidence) -> dict[str, list[int]]:
        """Cross-entropies on the forget part, and on calibration data that it may be compared with."""
        parts = {"forget": slice(None), "calibration": found.unseen}
        return {
            part: histogram(loss(found.logits[part][rows], found.labels[part][rows]))
            for part, rows in parts.items()
        }

    def describe(self, found: Evidence) -> dict[str, Any]:
        """None: its figures are over few examples that are the same for every model."""
        return {}

    def sheet(self, found: Evidence) -> None:
        """Nothing: logits are no picture."""

    def score_trial(self, values: Values, wanted: Values, floor: float) -> dict[str, float]:
        """The mean gap in points, and how far the rest of what a verdict asks for is off, in its own unit."""
        off = {name: abs(values[name] - wanted[name]) for name in POINTS if name in wanted}
        over = {"tv": values["tv"], "excess": max(0.0, values["tv"] - floor)}
        parts = {"gap": mean_gap(values, wanted), **over, **off}
        more = sum(POINTS[name] * each for name, each in parts.items() if name in POINTS)
        return {"value": parts["gap"] + more / len(GAP), **parts}

    def objectives(self, found: Evidence, values: Values, wanted: Values) -> dict[str, float]:
        """Deep Unlearn's four: a third of each difference in accuracy, and how well an attack does."""
        apart = {name: abs(values[name] - wanted[name]) / 300 for name in ("ra", "ua", "ta")}
        return {**apart, "discernibility": 1 - deep_unlearn.part_indiscernibility(found, "calibration")}

    def judge(
        self,
        values: Sequence[Values],
        references: Sequence[Values],
        margins: Margins | None,
        original: Sequence[Values],
        answers: Callable[[], Sequence[Evidence]],
    ) -> Judgement:
        """The verdict."""
        return judge(values, references, margins, original=original)


ANSWERED = Classified(None)
"""The exam of a model that is known by its answers alone."""


def histogram(values: Float[np.ndarray, " batch"]) -> list[int]:
    """Counts between `EDGES`."""
    return np.histogram(values.clip(EDGES[0], EDGES[-1]), EDGES)[0].tolist()

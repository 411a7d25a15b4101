r"""The exam of classifiers: logits of every example, and attacks on features.

The value of a trial of a search is, in points, :math:`(|dUA| + |dRA| + |dTA| + |dMIA| + 100\,TV^+ +
100\,|dAUC| + |dprobe| + 100\,|dsilhouette| + |drelearn|) / 4`, where d is the difference from the retrained
model of the seed, and TV^+ the excess of the mean total variation on the forget set over that of a second
retrained model. The last three count if classes are forgotten whole. The calibration set is used as test set,
which no trial sees.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unweave.audits.classifier import deep_unlearn, parquet
from unweave.audits.classifier.collect import Cut, collect
from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.logits import loss
from unweave.audits.classifier.margins import calibrate
from unweave.audits.classifier.metrics import GAP, METRICS, measure, measure_pair
from unweave.audits.classifier.probes import probe, probe_size
from unweave.audits.classifier.repeat import refuse_varying_answers
from unweave.audits.exam import Exam, Glance
from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values, mean_gap
from unweave.audits.verdict import Judgement, judge
from unweave.data import Source
from unweave.errors import Failed
from unweave.split import PARTS, Part, Split
from unweave.tasks import evaluating

TRIAL_POINTS = {"excess": 100.0, "auc": 100.0, "probe": 1.0, "silhouette": 100.0, "relearn": 1.0}
"""The value of one unit of each distance in points, in addition to the four parts of the mean gap."""

EDGES = np.geomspace(1e-5, 32, 45)
"""Edges of the histograms of losses, in nats; the outer bins include everything beyond."""


@dataclass(frozen=True)
class ClassifierExam(Exam[Evidence]):
    """Questions to classifiers about one split.

    Args:
        split: The data; None if only the answers of models are known.
        device: The device of the models; that of each model if None.
        on: The held-out part used as test set: "calibration" in a search of settings.
        max_examples: The largest number of examples of a part that are asked, drawn at random; None: all.
    """

    split: Split | None
    device: torch.device | str | None = "cpu"
    on: HeldOut = "test"
    max_examples: int | None = None
    metrics: ClassVar[Mapping[str, Metric[Evidence]]] = METRICS
    distance: ClassVar[str] = "tv"
    suffix: ClassVar[str] = "parquet"
    edges: ClassVar[Sequence[float]] = tuple(EDGES.tolist())
    glances: ClassVar[Sequence[Glance]] = (
        Glance("ua", "UA: error on the forget set, %", 2),
        Glance("ra", "RA: accuracy on the retain set, %", 2),
        Glance("ta", "TA: accuracy on the test set, %", 2),
        Glance("auc", "AUC of membership", 3),
    )

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the parts and of the probe; empty if only answers are known."""
        if self.split is None:
            return {}
        sizes = {part: len(ids) for part, (_, ids) in self.cuts(PARTS).items()}
        return {**sizes, "probe": probe_size(sizes["forget"])}

    def cuts(self, parts: Sequence[Part]) -> dict[str, Cut]:
        """The sources and positions of some parts of the data."""
        assert self.split is not None
        return {part: draw_some(*self.split.part(part), self.max_examples) for part in parts}

    @property
    def glance_note(self) -> str:
        """A sentence on how few answers the glances use; empty if they use all the data."""
        if self.max_examples is None or self.split is None:
            return ""
        if all(len(self.split.part(part)[1]) <= self.max_examples for part in PARTS):
            return ""
        return f"A glance at {self.max_examples:,} examples of a part at most; `unweave audit` asks all."

    def answers(self, model: nn.Module) -> Evidence:
        """Collects the logits of every example of the allowed parts, some of them twice."""
        cuts, device = self.cuts(PARTS if self.on == "test" else PARTS[:3]), self.model_device(model)
        evidence = collect(model, cuts, device=device, forgotten_classes=self.forgotten_classes)
        if not evidence.finite:
            raise Failed("NaN: the logits contain NaN or infinity")
        with evaluating(model):
            refuse_varying_answers(model, cuts, evidence, device=device)
        return evidence

    def save(self, outputs: Evidence, path: Path) -> None:
        """Writes the logits as parquet."""
        parquet.save(outputs, path)

    def load(self, path: Path) -> Evidence:
        """Reads the logits."""
        return parquet.load(path)

    def open(self, path: Path) -> Evidence:
        """Checks the logits, which are read when they are used."""
        return parquet.open_evidence(path)

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """Attacks on the features, if classes are forgotten whole."""
        if not self.forgotten_classes:
            return {}
        return probe(model, self.cuts(("forget", "retain")), device=self.model_device(model))

    @property
    def forgotten_classes(self) -> tuple[int, ...]:
        """The classes that are forgotten whole."""
        assert self.split is not None
        return self.split.forgotten_classes

    def model_device(self, model: nn.Module) -> torch.device | str:
        """The device of a model."""
        return next(model.parameters()).device if self.device is None else self.device

    def measure(self, outputs: Evidence, reference: Evidence | None = None) -> dict[str, float]:
        """Every metric."""
        return measure(outputs, reference, on=self.on)

    def benchmark_metrics(self, outputs: Evidence, reference: Evidence) -> dict[str, float]:
        """The figures of Deep Unlearn."""
        return deep_unlearn.figures(outputs, reference)

    def measure_pair(self, outputs: Evidence, reference: Evidence) -> dict[str, float]:
        """The metrics that compare."""
        return measure_pair(outputs, reference, on=self.on)

    def calibrate(self, outputs: Sequence[Evidence], probes: Sequence[Values]) -> Margins:
        """The margins."""
        return calibrate(outputs, probes=probes, on=self.on)

    def probe_caveat(self, outputs: Evidence) -> str:
        """Without probes a forgotten class may be merely hidden."""
        caveat = "the logits alone can't tell a class that is lost from one that is hidden"
        return caveat if outputs.forgotten_classes else ""

    def fingerprint(self, outputs: Evidence) -> str:
        """The digest of the logits."""
        digest = hashlib.sha256()
        for part in sorted(outputs.logits):
            digest.update(np.ascontiguousarray(outputs.logits[part]).data.cast("B"))
        return digest.hexdigest()

    def explain_unlike(self, outputs: Evidence, audited: Evidence) -> str:
        """Whether the numbers of logits differ."""
        if outputs.n_classes == audited.n_classes:
            return ""
        return f"gives {outputs.n_classes} logits per example, and the audited one {audited.n_classes}"

    def histograms(self, outputs: Evidence) -> dict[str, list[int]]:
        """Histograms of the cross-entropy on the forget set, and on comparable calibration examples."""
        parts = {"forget": slice(None), "calibration": outputs.unseen}
        return {
            part: histogram(loss(outputs.logits[part][rows], outputs.labels[part][rows]))
            for part, rows in parts.items()
        }

    def score_trial(self, values: Values, retrained_values: Values, floor: float) -> dict[str, float]:
        """The mean gap in points, and the other distances that a verdict uses, each in its own unit."""
        distances = {
            name: abs(values[name] - retrained_values[name])
            for name in TRIAL_POINTS
            if name in retrained_values
        }
        tv_parts = {"tv": values["tv"], "excess": max(0.0, values["tv"] - floor)}
        parts = {"gap": mean_gap(values, retrained_values, METRICS), **tv_parts, **distances}
        extra_points = sum(TRIAL_POINTS[name] * each for name, each in parts.items() if name in TRIAL_POINTS)
        return {"value": parts["gap"] + extra_points / len(GAP), **parts}

    def objectives(self, outputs: Evidence, values: Values, retrained_values: Values) -> dict[str, float]:
        """Deep Unlearn's four: a third of each difference in accuracy, and the success of an attack."""
        differences = {name: abs(values[name] - retrained_values[name]) / 300 for name in ("ra", "ua", "ta")}
        return {
            **differences,
            "discernibility": 1 - deep_unlearn.part_indiscernibility(outputs, "calibration"),
        }

    def judge(
        self,
        values: Sequence[Values],
        references: Sequence[Values],
        margins: Margins | None,
        original: Sequence[Values],
        answers: Callable[[], Sequence[Evidence]],
    ) -> Judgement:
        """Judges the models of several seeds."""
        return judge(values, references, margins, original=original, metrics=METRICS)


def draw_some(source: Source, places: Int64[Tensor, " n"], max_examples: int | None) -> Cut:
    """A part of the data, or that number of examples of it, always the same ones."""
    if max_examples is None or len(places) <= max_examples:
        return source, places
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    return source, places[order[:max_examples].sort().values]


ANSWERED = ClassifierExam(None)
"""The exam of models of which only the answers are known."""


def histogram(values: Float[np.ndarray, " batch"]) -> list[int]:
    """The histogram with `EDGES`."""
    return np.histogram(values.clip(EDGES[0], EDGES[-1]), EDGES)[0].tolist()

"""The exam of a family of models: the questions, and how their answers are measured and judged.

Benchmarks and audits hold an exam over a split; everything that depends on the family is here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from torch import nn

from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.verdict import Judgement

Found = TypeVar("Found")
"""The answers of a model: logits, or images."""


@dataclass(frozen=True)
class Glance:
    """A figure that is shown before and after unlearning, without a verdict.

    Args:
        id: Its key in JSON.
        title: Its name for people, with the unit.
        digits: The number of decimals.
        of: Computes it from the metrics of one model.
    """

    id: str
    title: str
    digits: int
    of: Callable[[Values], float]


@runtime_checkable
class Exam(Protocol[Found]):
    """Questions to a model about one split."""

    metrics: ClassVar[Mapping[str, Metric[Any]]]
    """All metrics that it measures, by id."""
    distance: ClassVar[str]
    """The metric of the distance of two models on the forget set."""
    suffix: ClassVar[str]
    """The suffix of files with answers."""
    glances: ClassVar[Sequence[Glance]]
    """The figures shown before and after unlearning."""

    @property
    def glance_note(self) -> str:
        """A sentence on how few answers the glances use; empty if they use all the data."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """The number of answers for each part of the data."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that all figures depend on, besides the data."""
        ...

    @property
    def digest(self) -> str:
        """Digest of everything else the answers depend on; stored answers are reused only if it matches."""
        ...

    def answers(self, model: nn.Module) -> Found:
        """Collects the answers of the model, which stays unchanged.

        Raises:
            Failed: If the answers are unusable.
        """
        ...

    def save(self, found: Found, path: Path) -> None:
        """Writes answers to a file, atomically."""
        ...

    def load(self, path: Path) -> Found:
        """Reads answers from a file."""
        ...

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """Runs the attacks that need the model itself, and some the original; results by metric."""
        ...

    def measure(self, found: Found, reference: Found | None = None) -> dict[str, float]:
        """Every metric of the answers; metrics that compare need the answers of a reference."""
        ...

    def drift(self, found: Found, original: Found) -> dict[str, float]:
        """The distance of the answers on retained classes from those of the original, by metric."""
        ...

    def benchmark_metrics(self, found: Found, reference: Found) -> dict[str, float]:
        """Metrics of published benchmarks, which no verdict uses; may be empty."""
        ...

    def measure_pair(self, found: Found, reference: Found) -> dict[str, float]:
        """The metrics that compare with a reference, and no others."""
        ...

    def calibrate(self, found: Sequence[Found], probes: Sequence[Values]) -> Margins:
        """The margins, from the answers and probes of retrained models that are never reported."""
        ...

    def probe_caveat(self, found: Found) -> str:
        """A clause on what the verdict can't know without probes; may be empty."""
        ...

    def fingerprint(self, found: Found) -> str:
        """A digest of the answers; two models from different trainings never share it."""
        ...

    def histograms(self, found: Found) -> Mapping[str, list[int]]:
        """Histograms of losses on the forget set and on held-out data; may be empty."""
        ...

    def describe(self, found: Found) -> Mapping[str, Any]:
        """Figures of one model with intervals over its answers; may be empty."""
        ...

    def sheet(self, found: Found) -> str | None:
        """A picture of the answers, as a data URI; None if the exam draws none."""
        ...

    def score_trial(self, values: Values, wanted: Values, floor: float) -> dict[str, float]:
        """The distance of a trial of a search from a retrained model, by part; the search minimises "value".

        Args:
            values: The metrics of the trial.
            wanted: The metrics of the retrained model.
            floor: The `distance` of two retrained models; a smaller one counts as no better.
        """
        ...

    def objectives(self, found: Found, values: Values, wanted: Values) -> dict[str, float]:
        """The four distances from a retrained model that a large search minimises.

        Args:
            found: The answers of the trial.
            values: The metrics of the trial.
            wanted: The metrics of the retrained model.
        """
        ...

    def judge(
        self,
        values: Sequence[Values],
        references: Sequence[Values],
        margins: Margins | None,
        original: Sequence[Values],
        answers: Callable[[], Sequence[Found]],
    ) -> Judgement:
        """Judges the models of several seeds.

        Args:
            values: The metrics of the model, per seed.
            references: The metrics of the retrained reference, per seed.
            margins: The margins; None without calibration.
            original: The metrics of the model before unlearning, per seed.
            answers: Reads the answers of the originals.
        """
        ...


def glance(exam: Exam[Any], model: nn.Module) -> dict[str, float]:
    """The values of the glances of an exam, by id."""
    values = exam.measure(exam.answers(model))
    return {each.id: each.of(values) for each in exam.glances}

"""The exam of a family of models: the questions, and how their answers are measured and judged.

Benchmarks and audits hold an exam over a split; everything that depends on the family is here. An exam
consists of small protocols, and each caller takes only those that it needs. A family's exam inherits from
`Exam`, and leaves out what the family does not have.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from torch import nn

from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.verdict import Judgement

__all__ = [
    "Answering",
    "Exam",
    "Glance",
    "Glancing",
    "Judging",
    "Measuring",
    "Reporting",
    "Searching",
    "Storing",
]

Outputs = TypeVar("Outputs")
"""What a model answered: logits, or images."""

Given = TypeVar("Given", contravariant=True)
"""The same, for protocols that only take answers."""


@runtime_checkable
class Answering(Protocol[Outputs]):
    """The questions to a model about one split."""

    @abstractmethod
    def answers(self, model: nn.Module) -> Outputs:
        """Collects the answers of the model, which stays unchanged.

        Raises:
            Failed: If the answers are unusable.
        """
        ...

    @abstractmethod
    def fingerprint(self, outputs: Outputs) -> str:
        """A digest of the answers; two models from different trainings never share it."""
        ...

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """Runs the attacks that need the model itself, and some the original; results by metric."""
        return {}

    def explain_unlike(self, outputs: Outputs, audited: Outputs) -> str:
        """Why answers can't be compared with the audited model's, as the end of a sentence; may be empty."""
        return ""


@runtime_checkable
class Storing(Answering[Outputs], Protocol[Outputs]):
    """Answers in files."""

    suffix: ClassVar[str]
    """The suffix of files with answers."""

    @property
    def digest(self) -> str:
        """Digest of all else that answers depend on; stored answers are reused only if it matches."""
        return ""

    @abstractmethod
    def save(self, outputs: Outputs, path: Path) -> None:
        """Writes answers to a file, atomically."""
        ...

    @abstractmethod
    def load(self, path: Path) -> Outputs:
        """Reads answers from a file."""
        ...

    def open(self, path: Path) -> Outputs:
        """Reads answers from a file that stays as it is, where possible one piece at a time."""
        return self.load(path)


@runtime_checkable
class Measuring(Protocol[Given]):
    """The metrics of answers."""

    metrics: ClassVar[Mapping[str, Metric[Any]]]
    """All metrics that it measures, by id."""
    distance: ClassVar[str]
    """The metric of the distance of two models on the forget set."""

    @abstractmethod
    def measure(self, outputs: Given, reference: Given | None = None) -> dict[str, float]:
        """Every metric of the answers; metrics that compare need the answers of a reference."""
        ...

    @abstractmethod
    def measure_pair(self, outputs: Given, reference: Given) -> dict[str, float]:
        """The metrics that compare with a reference, and no others."""
        ...

    def drift(self, outputs: Given, original: Given) -> dict[str, float]:
        """The distance of the answers on retained classes from those of the original, by metric."""
        return {}

    def benchmark_metrics(self, outputs: Given, reference: Given) -> dict[str, float]:
        """Metrics of published benchmarks, which no verdict uses."""
        return {}


@runtime_checkable
class Judging(Protocol[Given]):
    """Margins, and the verdict by them."""

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """The number of answers for each part of the data."""
        ...

    @abstractmethod
    def calibrate(self, outputs: Sequence[Given], probes: Sequence[Values]) -> Margins:
        """The margins, from the answers and probes of retrained models that are never reported."""
        ...

    @abstractmethod
    def judge(
        self,
        values: Sequence[Values],
        references: Sequence[Values],
        margins: Margins | None,
        original: Sequence[Values],
        answers: Callable[[], Sequence[Given]],
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

    def probe_caveat(self, outputs: Given) -> str:
        """A clause on what the verdict can't know without probes; empty if there is nothing."""
        return ""


@runtime_checkable
class Searching(Protocol[Given]):
    """What a search of settings minimises."""

    @abstractmethod
    def score_trial(self, values: Values, retrained_values: Values, floor: float) -> dict[str, float]:
        """The distance of a trial of a search from a retrained model, by part; the search minimises "value".

        Args:
            values: The metrics of the trial.
            retrained_values: The metrics of the retrained model.
            floor: The `distance` of two retrained models; a smaller one counts as no better.
        """
        ...

    @abstractmethod
    def objectives(self, outputs: Given, values: Values, retrained_values: Values) -> dict[str, float]:
        """The four distances from a retrained model that a large search minimises.

        Args:
            outputs: The answers of the trial.
            values: The metrics of the trial.
            retrained_values: The metrics of the retrained model.
        """
        ...


@runtime_checkable
class Reporting(Protocol[Given]):
    """What a record and its page show besides metrics."""

    edges: ClassVar[Sequence[float]] = ()
    """The edges of the histograms; the outer bins include everything beyond."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that all figures depend on, besides the data."""
        return {}

    def histograms(self, outputs: Given) -> Mapping[str, list[int]]:
        """Histograms of losses on the forget set and on held-out data."""
        return {}

    def describe(self, outputs: Given) -> Mapping[str, Any]:
        """Figures of one model with intervals over its answers."""
        return {}

    def sheet(self, outputs: Given) -> str | None:
        """A picture of the answers, as a data URI; None if the exam draws none."""
        return None


@dataclass(frozen=True)
class Glance:
    """A metric that is shown before and after unlearning, without a verdict.

    Args:
        id: The id of the metric, its key in JSON; the loss of `ra` is the damage to the retain set.
        title: Its name for people, with the unit.
        digits: The number of decimals.
    """

    id: str
    title: str
    digits: int


@runtime_checkable
class Glancing(Answering[Outputs], Measuring[Outputs], Protocol[Outputs]):
    """A short exam before and after unlearning."""

    glances: ClassVar[Sequence[Glance]]
    """The figures shown before and after unlearning."""

    @property
    def glance_note(self) -> str:
        """A sentence on how few answers the glances use; empty if they use all the data."""
        return ""


@runtime_checkable
class Exam(
    Storing[Outputs],
    Glancing[Outputs],
    Judging[Outputs],
    Searching[Outputs],
    Reporting[Outputs],
    Protocol[Outputs],
):
    """Everything that a benchmark asks of a family of models."""


def glance(exam: Glancing[Any], model: nn.Module) -> dict[str, float]:
    """The values of the glances of an exam, by id."""
    values = exam.measure(exam.answers(model))
    return {each.id: values[each.id] for each in exam.glances}

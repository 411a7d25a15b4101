"""What a family of models is asked, and what is made of its answers: all in which audits of families differ.

A benchmark and an audit of one model hold an exam over a split, and know no family.
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
"""What a model answers: logits, or images."""


@dataclass(frozen=True)
class Glance:
    """A figure that is shown before and after unlearning, without a verdict.

    Args:
        id: What JSON calls it.
        title: What people read, with its unit.
        digits: Decimals.
        of: Takes it from the metrics of one model.
    """

    id: str
    title: str
    digits: int
    of: Callable[[Values], float]


@runtime_checkable
class Exam(Protocol[Found]):
    """Questions to a model about one split."""

    metrics: ClassVar[Mapping[str, Metric[Any]]]
    """Every number that it may end with."""
    distance: ClassVar[str]
    """The metric that says how far two models are apart on what is forgotten."""
    suffix: ClassVar[str]
    """How the names of files with answers end."""
    glances: ClassVar[Sequence[Glance]]
    """What a person looks at first."""

    @property
    def glance_note(self) -> str:
        """How little those rest on, as a sentence; empty where it is all the data."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many answers there are for each part that a metric counts."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What all its figures hang on, beside the data."""
        ...

    @property
    def digest(self) -> str:
        """Of all that answers hang on beside data and model: none are read under another exam."""
        ...

    def answers(self, model: nn.Module) -> Found:
        """What the model answers, which is left as it was.

        Raises:
            Failed: If that is of no use.
        """
        ...

    def save(self, found: Found, path: Path) -> None:
        """Writes answers, whole or not at all."""
        ...

    def load(self, path: Path) -> Found:
        """Reads them."""
        ...

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """What only the model itself can tell, by metric; some of it only beside the original."""
        ...

    def measure(self, found: Found, reference: Found | None = None) -> dict[str, float]:
        """Every metric of answers; those that compare are absent without a retrained model's."""
        ...

    def drift(self, found: Found, original: Found) -> dict[str, float]:
        """How far the answers to what stays have moved from the original model's, by metric."""
        ...

    def benchmark_metrics(self, found: Found, reference: Found) -> dict[str, float]:
        """What published benchmarks say, which no verdict rests on; empty where there are none."""
        ...

    def measure_pair(self, found: Found, reference: Found) -> dict[str, float]:
        """The metrics that compare, and no others."""
        ...

    def calibrate(self, found: Sequence[Found], probes: Sequence[Values]) -> Margins:
        """What retrained models that are never reported differ by, from their answers and their probes."""
        ...

    def probe_caveat(self, found: Found) -> str:
        """What only probes could tell, as a clause; empty if there is nothing."""
        ...

    def fingerprint(self, found: Found) -> str:
        """A digest of the answers: two models that were trained apart never share it."""
        ...

    def histograms(self, found: Found) -> Mapping[str, list[int]]:
        """Losses on the forget part and on data never seen, counted; empty where there are none."""
        ...

    def describe(self, found: Found) -> Mapping[str, Any]:
        """Figures of one model with intervals over its answers; empty where there are none."""
        ...

    def sheet(self, found: Found) -> str | None:
        """A picture of the answers, as a data URI; None where there is nothing to see."""
        ...

    def score_trial(self, values: Values, wanted: Values, floor: float) -> dict[str, float]:
        """How far a trial of a search is from a retrained model, by part; "value" is what is minimised.

        Args:
            values: Of the trial.
            wanted: Of the retrained model.
            floor: The `distance` of two retrained models: nearer than that is no better.
        """
        ...

    def objectives(self, found: Found, values: Values, wanted: Values) -> dict[str, float]:
        """How far a trial is from a retrained model in the four numbers that a large search minimises.

        Args:
            found: What the trial answers.
            values: Its metrics.
            wanted: Those of the retrained model.
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
        """The verdict on models of several seeds.

        Args:
            values: Per seed, of the model.
            references: Per seed, of the retrained one.
            margins: None if there are none.
            original: Per seed, of the model before unlearning.
            answers: Reads what the originals answer.
        """
        ...


def glance(exam: Exam[Any], model: nn.Module) -> dict[str, float]:
    """The figures that a person looks at first, by id."""
    values = exam.measure(exam.answers(model))
    return {each.id: each.of(values) for each in exam.glances}

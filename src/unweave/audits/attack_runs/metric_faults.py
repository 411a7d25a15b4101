"""The metrics by which a verdict tells the answers of a model from those of retrained models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.equivalence import equivalences
from unweave.audits.exam import Measuring


@dataclass(frozen=True)
class MetricFaults:
    """Tests answers as a verdict does, without its probes.

    Args:
        exam: The metrics.
        margins: The margin of each metric; empty without calibration retrains, and nothing is then found.
        measured: Answers that were measured before and their metrics, by identity.
    """

    exam: Measuring[Any]
    margins: Mapping[str, float]
    measured: dict[int, tuple[Evidence, dict[str, float]]] = field(default_factory=dict)

    def __call__(self, answers: Evidence, references: Sequence[Evidence]) -> list[str]:
        """The titles of the metrics that differ."""
        if not self.margins:
            return []
        alone = self.alone(answers)
        values = [{**alone, **self.exam.measure_pair(answers, each)} for each in references]
        tests = equivalences(
            values, [self.alone(each) for each in references], self.margins, metrics=self.exam.metrics
        )
        return [self.exam.metrics[name].title for name, test in tests.items() if test.finding]

    def alone(self, answers: Evidence) -> dict[str, float]:
        """The metrics of one model, measured once."""
        if id(answers) not in self.measured:
            self.measured[id(answers)] = answers, self.exam.measure(answers)
        return self.measured[id(answers)][1]

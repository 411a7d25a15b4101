"""The answers of one model to an audit's questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from torch import nn

from unweave.audits.exam import Answering, Measuring, Outputs
from unweave.audits.metrics import Values
from unweave.weights.cost import Cost

Measurements = Mapping[str, Sequence[float]]
"""The numbers that an attack measured of one model, by name."""


@dataclass(frozen=True)
class Answers(Generic[Outputs]):
    """The answers of one model, and the probes that need the model itself.

    Args:
        found: The logits or the images.
        probes: The results of attacks on the model, by metric; empty if only its answers are known.
        cost: The cost of its training; None if unknown.
        measurements: What attacks kept of the model, by the attack's name.
    """

    found: Outputs
    probes: Values = field(default_factory=dict)
    cost: Cost | None = None
    measurements: Mapping[str, Measurements] = field(default_factory=dict)

    def measure(
        self, exam: Measuring[Outputs], reference: "Answers[Outputs] | None" = None
    ) -> dict[str, float]:
        """Every metric; with a reference also those that compare."""
        return {**exam.measure(self.found, None if reference is None else reference.found), **self.probes}


def collect_answers(
    model: nn.Module, exam: Answering[Outputs], original: nn.Module | None = None
) -> Answers[Outputs]:
    """Collects the answers and probes of a model; some probes also need its original."""
    return Answers(exam.answers(model), exam.probes(model, original))


def measure_against(
    exam: Measuring[Outputs], found: Answers[Outputs], references: Sequence[Answers[Outputs]]
) -> list[dict[str, float]]:
    """The metrics of one model, compared with each reference in turn; without references its own metrics."""
    return [found.measure(exam, each) for each in references] or [found.measure(exam)]

"""The answers of models to an audit's questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from torch import nn

from unweave.audits.exam import Answering, Judging, Measuring, Outputs, Reporting
from unweave.audits.margins import Margins
from unweave.audits.metrics import Values
from unweave.errors import Failed
from unweave.record import checkpoint
from unweave.result import Result
from unweave.weights.cost import Cost
from unweave.weights.sharded_model import is_model_sharded

Measurements = Mapping[str, Sequence[float]]
"""The numbers that an attack measured of one model, by name."""


@dataclass(frozen=True)
class Answers(Generic[Outputs]):
    """The answers of one model, and the probes that need the model itself.

    Args:
        outputs: The logits or the images.
        probes: The results of attacks on the model, by metric; empty if only its answers are known.
        cost: The cost of its training; None if unknown.
        measurements: What attacks kept of the model, by the attack's name.
    """

    outputs: Outputs
    probes: Values = field(default_factory=dict)
    cost: Cost | None = None
    measurements: Mapping[str, Measurements] = field(default_factory=dict)

    def measure(
        self, exam: Measuring[Outputs], reference: "Answers[Outputs] | None" = None
    ) -> dict[str, float]:
        """Every metric; with a reference also those that compare."""
        return {**exam.measure(self.outputs, None if reference is None else reference.outputs), **self.probes}


def collect_answers(
    model: nn.Module, exam: Answering[Outputs], original: nn.Module | None = None
) -> Answers[Outputs]:
    """Collects the answers and probes of a model; some probes also need its original."""
    return Answers(exam.answers(model), exam.probes(model, original))


def answers_or_refuse(
    name: str, model: nn.Module, exam: Answering[Outputs], original: nn.Module | None = None
) -> Answers[Outputs]:
    """Collects the answers of a model that an audit can't do without.

    Raises:
        ValueError: If they are unusable; the message names the model.
    """
    try:
        return collect_answers(model, exam, original)
    except Failed as error:
        raise ValueError(f"the {name} can't be audited: {error}") from error


def collect_answer_pair(
    result: Result, exam: Answering[Outputs]
) -> tuple[Answers[Outputs], Answers[Outputs]]:
    """Collects the answers of the unlearned model and of the original.

    Raises:
        ValueError: If they are unusable; the message names the model.
    """
    return (
        answers_or_refuse("unlearned model", result.model, exam, result.original),
        answers_or_refuse("original model", result.original, exam),
    )


def refuse_other_weights(result: Result) -> None:
    """Raises if the unlearned model has tensors of other names or shapes than the original.

    A command line audit loads weights into the project's own model, so it needs no such check. Nor do the
    pieces of a sharded model, which is edited where it is.
    """
    if is_model_sharded(result.model):
        return
    original_shapes, model_shapes = (
        checkpoint.shapes(each.state_dict()) for each in (result.original, result.model)
    )
    mismatch = checkpoint.difference(original_shapes, model_shapes)
    if mismatch:
        advice = "weights that no answer of the audit needs can hold the forget set"
        raise ValueError(f"the unlearned model must have the weights of the original, {mismatch}: {advice}")


def measure_against(
    exam: Measuring[Outputs], answers: Answers[Outputs], references: Sequence[Answers[Outputs]]
) -> list[dict[str, float]]:
    """The metrics of one model, compared with each reference in turn; without references its own metrics."""
    return [answers.measure(exam, each) for each in references] or [answers.measure(exam)]


def draw_sheets(
    exam: Reporting[Outputs], answers: Mapping[str, Sequence[Answers[Outputs] | None]]
) -> dict[str, str]:
    """Pictures of the answers, by model; empty if an exam draws none."""
    sheets = {
        name: exam.sheet(each[0].outputs) for name, each in answers.items() if each and each[0] is not None
    }
    return {name: sheet for name, sheet in sheets.items() if sheet is not None}


def calibrate_margins(exam: Judging[Outputs], answers: Sequence[Answers[Outputs]]) -> Margins | None:
    """The margins from calibration models; None with fewer than two."""
    if len(answers) < 2:
        return None
    return exam.calibrate([each.outputs for each in answers], [each.probes for each in answers])

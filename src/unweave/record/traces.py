"""Converts the curves of a run to rows of a record."""

from collections.abc import Mapping
from typing import Any


def trace_rows(
    traces: Mapping[str, Any], losses: Mapping[str, list[float]], *, points: int = 50
) -> dict[str, Any]:
    """The traces of probes and the losses, thinned to about `points` rows of step, value and reliability.

    Args:
        traces: The rows of the probes.
        losses: The loss of every term at every step.
        points: The number of points.
    """
    steps = {name: range(0, len(each), max(1, len(each) // points)) for name, each in losses.items()}
    return {**traces, **{name: [(i, losses[name][i], None) for i in steps[name]] for name in losses}}

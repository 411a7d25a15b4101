"""Curves of a run as rows of a record."""

from collections.abc import Mapping
from typing import Any


def trace_rows(
    traces: Mapping[str, Any], losses: Mapping[str, list[float]], *, points: int = 50
) -> dict[str, Any]:
    """What probes saw, and the losses thinned to about N points: rows of step, value and reliability.

    Args:
        traces: What probes saw, as rows.
        losses: The loss of every term at every step.
        points: N.
    """
    steps = {name: range(0, len(each), max(1, len(each) // points)) for name, each in losses.items()}
    return {**traces, **{name: [(i, losses[name][i], None) for i in steps[name]] for name in losses}}

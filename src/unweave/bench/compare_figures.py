"""Compares the figures of a record with recomputed ones."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from unweave.report.numbers import heading

TOLERANCE = 1e-6
"""Tolerance in a metric's unit: sums of floats on another machine may differ by this."""


def compare_figures(
    name: str, recorded: Mapping[str, float | None], found: Mapping[str, float], where: str
) -> Iterator[str]:
    """Yields a sentence for every figure that differs from the recomputed one."""
    for metric in (each for each in recorded if each in found):
        value, other = recorded[metric], found[metric]
        if value is None:
            same = not math.isfinite(other)
        else:
            same = math.isclose(value, other, rel_tol=0, abs_tol=TOLERANCE)
        if not same:
            yield f"{name} has {heading(metric)} {value}, but {where} {other:g}"


def drop_unknown(values: Mapping[str, Any]) -> dict[str, float]:
    """The known values, without tables."""
    return {name: value for name, value in values.items() if isinstance(value, int | float)}

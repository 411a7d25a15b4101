"""Compares the figures of a record with recomputed ones."""

import math
from collections.abc import Iterator, Mapping

from unweave.report.numbers import finite, heading

TOLERANCE = 1e-6
"""Tolerance in a metric's unit: sums of floats on another machine may differ by this."""


def compare_figures(
    name: str, recorded: Mapping[str, float | None], actual: Mapping[str, float], where: str
) -> Iterator[str]:
    """Yields a sentence for every figure that differs from the recomputed one."""
    for metric in (each for each in recorded if each in actual):
        if not is_same(recorded[metric], actual[metric]):
            yield f"{name} has {heading(metric)} {recorded[metric]}, but {where} {actual[metric]:g}"


def is_same(first: float | str | None, second: float | str | None) -> bool:
    """Whether two figures are equal within the tolerance, both missing, or the same text."""
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    one, other = (finite(each) for each in (first, second))
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE)

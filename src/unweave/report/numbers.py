"""Formats numbers for reports; a missing or non-finite number is a dash."""

import math

from unweave.families import metric_named

DASH = "\N{EN DASH}"


def finite(value: float | None) -> float | None:
    """The number as a float, None if it is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def number(value: float | None, digits: int = 2) -> str:
    """The number with `digits` decimals; a dash if it is missing or not finite; never a negative zero."""
    if (value := finite(value)) is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def probability(p: float | None) -> str:
    """A p-value with three decimals; a small one by its bound."""
    return "<0.001" if (p := finite(p)) is not None and p < 0.0005 else number(p, 3)


def interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """`12.34 ±0.41`; both ends in brackets where they are not symmetric; the number alone without them."""
    if (value := finite(value)) is None or (low := finite(low)) is None or (high := finite(high)) is None:
        return number(value, digits)
    if abs((high - value) - (value - low)) > 10**-digits:
        return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"
    return f"{number(value, digits)} ±{number((high - low) / 2, digits)}"


def digits(metric: str) -> int:
    """Decimals of a metric: two for percentages, one for steps, three for shares, correlations and bits."""
    entry = metric_named(metric)
    return {"%": 2, "steps": 1}.get("" if entry is None else entry.unit, 3)


def heading(metric: str) -> str:
    """A column's name: the metric's title, or the id of a metric that this version does not know."""
    entry = metric_named(metric)
    return metric if entry is None else entry.title

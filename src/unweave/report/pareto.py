"""Gap against time, with test accuracy as the third mark, as one SVG element."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from unweave.report.figures import drawn_metric
from unweave.report.labels import Point, write_names
from unweave.report.numbers import finite, heading
from unweave.report.rows import Row, rows
from unweave.report.svg import FAINT, INK, SERIES, axes, svg, ticks

LEAST = 0.01
"""The smallest gap drawn, in points, because the axis is logarithmic."""


def pareto(stage: Mapping[str, Any]) -> str | None:
    """The mean gap against the time relative to retraining, with the Pareto front.

    The area of a point is the shortfall of its test accuracy (for a generator, of retained accuracy). A
    filled point is not dominated in all three. The original is a line, because it takes no time. None with
    fewer than two methods to draw.
    """
    utility = drawn_metric(stage, "utility")
    if utility is None:
        return None
    figures = {row.name: of for row in rows(stage) if (of := _figures(row, utility)) is not None}
    if len(figures) < 2:
        return None
    points = {name: each[:2] for name, each in figures.items()}
    stairs, best_names = front([points[name] for name in find_undominated(points)]), find_undominated(figures)
    with axes(4.0, 3.5) as (figure, plot):
        plot.set_xscale("log")
        plot.set_yscale("log")
        _levels(plot, stage)
        plot.plot(*zip(*stairs, strict=True), color=SERIES[1], linewidth=1.2, alpha=0.7, zorder=1)
        for name, (time, gap, shortfall) in figures.items():
            face = SERIES[0] if name in best_names else "none"
            plot.scatter(
                time, gap, s=_area(shortfall), facecolor=face, edgecolor=SERIES[0], alpha=0.8, zorder=2
            )
        _areas(plot, utility)
        plot.margins(0.12)
        for axis, limits in ((plot.xaxis, plot.get_xlim()), (plot.yaxis, plot.get_ylim())):
            ticks(axis, round_between(*limits))
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        plot.set_xlabel("Time, relative to one retrain")
        plot.set_ylabel("Mean gap, points")
        # Names are placed in pixels, which only a finished layout has.
        figure.draw_without_rendering()
        cross = [(1.0, floor)] if (floor := finite(stage.get("floor"))) else []
        write_names(
            plot, list(points), list(points.values()), figure.dpi / 72, keep=dense_points(stairs) + cross
        )
        return svg(figure, f"Gap against time and utility of {len(figures)} methods")


def find_undominated(points: Mapping[str, tuple[float, ...]]) -> list[str]:
    """The names of points that no other point dominates."""
    return [name for name, point in points.items() if not any(beats(each, point) for each in points.values())]


def beats(point: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether one point dominates the other: nowhere larger, and smaller in some coordinate."""
    return point != other and all(a <= b for a, b in zip(point, other, strict=True))


def front(points: Sequence[Point]) -> list[Point]:
    """The staircase of the smallest gap up to each time."""
    corners = sorted(points)
    return [corners[0], *(step for (_, y), end in pairwise(corners) for step in ((end[0], y), end))]


def dense_points(stairs: Sequence[Point]) -> list[Point]:
    """Dense points along the staircase on logarithmic axes, which names must not cover."""
    corners = np.log(np.array(stairs))
    between = [np.exp(np.linspace(*ends, 12)) for ends in pairwise(corners)]
    return [(float(x), float(y)) for line in between for x, y in line]


def round_between(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: at least three if possible, and few otherwise."""
    ticks: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [step * 10.0**power for power in range(-6, 5) for step in steps]
        ticks = [each for each in ticks if low <= each <= high]
        if len(ticks) > 2:
            break
    return ticks


def _figures(row: Row, utility: str) -> tuple[float, float, float] | None:
    """Time, gap and shortfall of utility, in points; None for failures, zero times and references."""
    cell = row.scores.get(utility)
    if row.kind != "method" or row.status == "FAILED" or cell is None:
        return None
    time, gap, excess = row.cost, row.gap.mean, cell.gap
    return None if not time or gap is None or excess is None else (time, max(gap, LEAST), max(0.0, -excess))


def _levels(plot: Axes, stage: Mapping[str, Any]) -> None:
    """Draws the gap of the untouched original, and that of another retraining, marked by the cross."""
    original = next((row.gap.mean for row in rows(stage) if row.kind == "original"), None)
    floor = finite(stage.get("floor"))
    for gap, name, x, side in (
        (original, "original", 0.99, "right"),
        (floor, "two retrained models", 0.01, "left"),
    ):
        if gap:
            plot.axhline(gap, color=FAINT, linewidth=0.8, linestyle="--", zorder=0)
            place = {"transform": plot.get_yaxis_transform(), "ha": side, "va": "bottom"}
            plot.text(x, gap, name, fontsize=7, color=INK, alpha=0.7, **place)
    if floor:
        plot.plot([1], [floor], marker="+", markersize=11, markeredgewidth=1.6, color=INK, zorder=3)


def _areas(plot: Axes, utility: str) -> None:
    for shortfall in (0.0, 1.0, 5.0):
        plot.scatter(
            [], [], s=_area(shortfall), color=SERIES[0], alpha=0.8, linewidth=0, label=f"{shortfall:g}"
        )
    title = f"{heading(utility)} below Retrain's, points"
    placement = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    plot.legend(title=title, frameon=False, ncols=3, **placement).get_title().set_fontsize(8.5)


def _area(shortfall: float) -> float:
    """Square points; the scale ends at ten points of accuracy."""
    return 14 + 18 * min(shortfall, 10.0)

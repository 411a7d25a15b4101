"""The mean gap against its cost, one line per method over its budgets, as one SVG element."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from unweave.report.frontier import TO_BEAT, gap_of, order_methods
from unweave.report.labels import Point, shorten
from unweave.report.numbers import finite
from unweave.report.pareto import LEAST, round_between
from unweave.report.svg import FAINT, INK, PAPER, SERIES, axes, svg, ticks

BEST = 5
"""The number of methods with a colour and a name."""

THIN = 0.6

Marked = Sequence[tuple[Point, bool]]
"""Points, each with whether the method passes."""


def figure(frontier: Mapping[str, Any]) -> str | None:
    """The mean gap over the gradient evaluations relative to a retraining, both axes logarithmic.

    The best methods and the baseline are named, other lines are thin. A filled point is a PASS. The shaded
    region ends at the gap of a model at its margins. None without a point to draw.
    """
    points_by_name = {name: finite_points(frontier["methods"][name]) for name in order_methods(frontier)}
    lines = {name: points for name, points in points_by_name.items() if points}
    if not lines:
        return None
    best_names = [name for name in lines if name != TO_BEAT][:BEST]
    labelled_names = [*best_names, *([TO_BEAT] if TO_BEAT in lines else [])]
    with axes(4.7, 3.6) as (image, plot):
        plot.set_xscale("log")
        plot.set_yscale("log")
        for name in [*(each for each in lines if each not in labelled_names), *labelled_names]:
            _line(plot, name, lines[name], *_style(name, best_names))
        _levels(plot, frontier)
        for axis, at in ((plot.xaxis, frontier["budgets"]), (plot.yaxis, round_between(*plot.get_ylim()))):
            ticks(axis, at)
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        plot.set_xlabel("Gradient evaluations, relative to one retrain")
        plot.set_ylabel("Mean gap, points")
        # below the plot, which leaves it the width of a telephone
        image.legend(frameon=False, loc="outside lower center", ncols=2, handlelength=2.2)
        return svg(image, f"Gap against cost of {len(lines)} methods")


def finite_points(method: Mapping[str, Any]) -> Marked:
    """The points of a method that can be drawn: those with a finite gap and a cost."""
    marks: list[tuple[Point, bool]] = []
    for point in method["points"]:
        cost, gap = finite(point["gradient_evaluations"]), gap_of(point)
        if cost and gap is not None:
            marks.append(((cost, max(gap, LEAST)), point["verdict"] == "PASS"))
    return marks


def _style(name: str, best_names: Sequence[str]) -> tuple[str, str, float]:
    """Colour, dash and width of a method's line."""
    if name == TO_BEAT:
        return INK, "--", 1.8
    return (SERIES[best_names.index(name)], "-", 1.5) if name in best_names else (FAINT, "-", THIN)


def _line(plot: Axes, name: str, points: Marked, colour: str, dash: str, width: float) -> None:
    is_labelled = width > THIN
    order = 2 if is_labelled else 1
    plot.plot(
        *zip(*(point for point, _ in points), strict=True),
        color=colour,
        linestyle=dash,
        linewidth=width,
        label=shorten(name) if is_labelled else None,
        zorder=order,
    )
    for point, passes in points:
        face, size = colour if passes else PAPER, 22 if is_labelled else 9
        plot.scatter(*point, s=size, facecolor=face, edgecolor=colour, linewidth=0.9, zorder=3)


def _levels(plot: Axes, frontier: Mapping[str, Any]) -> None:
    """The gap of the untouched original and of two retrained models, and the region of the margins."""
    plot.margins(0.1)
    for gap, name in ((frontier["original"], "original"), (frontier["floor"], "two retrained models")):
        if level := finite(gap):
            plot.axhline(level, color=FAINT, linewidth=0.8, linestyle="--", zorder=0)
            place = {"transform": plot.get_yaxis_transform(), "ha": "left", "va": "bottom"}
            plot.text(0.01, level, name, fontsize=7, color=INK, alpha=0.7, **place)
    low, high = plot.get_ylim()
    if margin := finite(frontier["margin"]):
        low, high = min(low, 0.8 * margin), max(high, 1.2 * margin)
        plot.axhspan(low, margin, color=SERIES[2], alpha=0.12, linewidth=0, zorder=0)
    plot.set_ylim(low, high)

"""Writes the names of points in a scatter plot so that they cover neither points nor each other."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from unweave.report.place_labels import Point, leader, place
from unweave.report.svg import FAINT

NAME_SIZE = 7.8
NAME_LENGTH = 24


def write_names(
    plot: Axes, names: Sequence[str], points: Sequence[Point], pixels: float, *, keep: Sequence[Point] = ()
) -> None:
    """Writes each name near its point, with a line if it is far.

    Args:
        plot: the axes; their layout is finished, since names are placed in pixels.
        names: of the points.
        points: in the units of the axes.
        pixels: per typographic point.
        keep: other points to leave uncovered, in the units of the axes.
    """
    at = [_pixels(plot, point) for point in points]
    names = [shorten(each) for each in names]
    sizes = [(0.5 * NAME_SIZE * len(each) * pixels, 1.2 * NAME_SIZE * pixels) for each in names]
    left, bottom, right, top = map(float, plot.bbox.extents)
    spared = [_pixels(plot, point) for point in keep]
    corners = place(at, sizes, (left, bottom, right, top), gap=5 * pixels, keep=spared)
    for each, point, corner, size in zip(names, at, corners, sizes, strict=True):
        # The layout may still move the axes; positions relative to them stay.
        end = leader(point, corner, size)
        xs, ys = plot.transAxes.inverted().transform([corner, point, end]).T
        plot.text(xs[0], ys[0], each, transform=plot.transAxes, fontsize=NAME_SIZE, va="bottom", zorder=4)
        if math.dist(point, end) > 8 * pixels:
            plot.plot(xs[1:], ys[1:], transform=plot.transAxes, color=FAINT, linewidth=0.6, zorder=1)


def shorten(text: str) -> str:
    """Shortens a long name; the tables have it in full."""
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 1]}…"


def _pixels(plot: Axes, point: Point) -> Point:
    x, y = plot.transData.transform(point)
    return float(x), float(y)

"""The names of points in a scatter plot, placed so that they cover neither points nor each other."""

import math
from collections.abc import Sequence
from itertools import product

from matplotlib.axes import Axes

from unweave.report.svg import FAINT

Point = tuple[float, float]
Box = tuple[float, float, float, float]

NAME_SIZE = 7.8
NAME_LENGTH = 24


def place(
    points: Sequence[Point], sizes: Sequence[Point], frame: Box, *, gap: float, keep: Sequence[Point] = ()
) -> list[Point]:
    """The lower left corner of each label.

    Labels are placed in the given order, each at the first of the places around its point, from near to far,
    that covers the least: other labels, points, and what lies outside the frame.

    Args:
        points: position of each point, pixels.
        sizes: width and height of each label, pixels.
        frame: left, bottom, right and top of the drawing, pixels.
        gap: distance between a point and its label, pixels.
        keep: other points to leave uncovered, pixels.
    """
    obstacles = [(x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2) for x, y in (*points, *keep)]
    corners: list[Point] = []
    for point, size in zip(points, sizes, strict=True):
        boxes = _around(point, size, gap)
        box = min(
            boxes, key=lambda box: _outside(box, frame) + sum(_overlap(box, other) for other in obstacles)
        )
        obstacles.append(box)
        corners.append(box[:2])
    return corners


def leader(point: Point, corner: Point, size: Point) -> Point:
    """Where a line from the point meets its label: the place of the label nearest to the point, pixels."""
    (x, y), (left, bottom), (width, height) = point, corner, size
    return min(max(x, left), left + width), min(max(y, bottom), bottom + height)


def _around(point: Point, size: Point, gap: float) -> list[Box]:
    (x, y), (width, height) = point, size
    boxes: list[Box] = []
    for reach, (right, up) in product(
        (1, 2, 3), ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
    ):
        left = x + {1: gap, 0: -width / 2, -1: -gap - width}[right]
        bottom = y + {1: gap, 0: -height / 2, -1: -gap - height}[up] + up * (reach - 1) * height
        boxes.append((left, bottom, left + width, bottom + height))
    return boxes


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box, frame: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, frame)


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
    keep_pixels = [_pixels(plot, point) for point in keep]
    corners = place(at, sizes, (left, bottom, right, top), gap=5 * pixels, keep=keep_pixels)
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

"""The diagram of mean ranks with their critical difference (Demšar, JMLR 7, 2006), as one SVG element."""

from dataclasses import dataclass

from matplotlib.axes import Axes

from unweave.report.labels import NAME_SIZE, shorten
from unweave.report.ranks import Ranking
from unweave.report.svg import FAINT, INK, SERIES, axes, svg

WIDTH, LINE, LEVEL = 288.0, 11.0, 5.0
"""The width of the diagram, the height of a name and the distance of two bars, in points."""


def critical_difference(ranking: Ranking) -> str:
    """Draws mean ranks on an axis, the best left; a bar joins methods without a significant difference."""
    names, bars = list(ranking.ranks), levels(ranking)
    half = (len(names) + 1) // 2
    beneath = 10 + LEVEL * len(bars)
    height = 32 + beneath + LINE * half
    room = 8 + 0.52 * NAME_SIZE * max(len(shorten(each)) for each in names)
    with axes(WIDTH / 72, height / 72) as (figure, plot):
        plot.set_axis_off()
        plot.set_xlim(0, WIDTH)
        plot.set_ylim(0, height)
        scale = Scale(plot, len(names), room, height - 32)
        scale.draw(ranking.critical)
        for i, each in enumerate(names):
            line = i if i < half else len(names) - 1 - i
            scale.name(each, ranking.ranks[each], beneath + LINE * (line + 0.5), left=i < half)
        for level, ends in enumerate(bars):
            for first, last in ends:
                scale.join(first, last, 7 + LEVEL * level)
        return svg(figure, f"Mean ranks of {len(names)} methods over {ranking.blocks} seeds")


def levels(ranking: Ranking) -> list[list[tuple[float, float]]]:
    """The ends of the bars, in ranks, on as few lines as possible without contact."""
    lines: list[list[tuple[float, float]]] = []
    spacing = 0.03 * len(ranking.ranks)
    for group in ranking.groups:
        first, last = ranking.ranks[group[0]], ranking.ranks[group[-1]]
        level = next((line for line in lines if line[-1][1] + spacing < first), None)
        if level is None:
            lines.append([(first, last)])
        else:
            level.append((first, last))
    return lines


@dataclass(frozen=True)
class Scale:
    """The axis of ranks, in points of the drawing.

    Args:
        plot: what to draw on.
        worst: the largest rank; the smallest is 1.
        room: The width of names on either side.
        height: where the axis is.
    """

    plot: Axes
    worst: int
    room: float
    height: float

    def at(self, rank: float) -> float:
        """The position of a rank."""
        return self.room + (rank - 1) / (self.worst - 1) * (WIDTH - 2 * self.room)

    def draw(self, critical: float) -> None:
        """Draws the axis with its ticks, and above it the critical difference, if that is shorter."""
        self._line([self.at(1), self.at(self.worst)], [0, 0], INK, 0.8)
        step = next(each for each in (1, 2, 5, 10, 20, 50) if (self.worst - 1) / each <= 7)
        for rank in range(1, self.worst + 1):
            if rank == 1 or rank % step == 0:
                self._line([self.at(rank)] * 2, [0, -3], INK, 0.8)
                self._text(self.at(rank), -5, f"{rank}", ha="center", va="bottom")
        label = f"critical difference {critical:.2f}"
        if critical > self.worst - 1:
            self._text(self.at(1), -18, f"{label}: wider than the axis", ha="left", va="bottom")
            return
        ends = [self.at(1), self.at(1 + critical)]
        self._line(ends, [-22, -22], SERIES[1], 2.0)
        self._text(ends[1] + 4, -22, label, ha="left", va="center")

    def name(self, text: str, rank: float, depth: float, *, left: bool) -> None:
        """Writes a method's name next to the axis, `depth` points under it, with a line to its rank."""
        edge = self.room - 4 if left else WIDTH - self.room + 4
        self._line([edge, self.at(rank), self.at(rank)], [depth, depth, 0], FAINT, 0.7)
        self._text(
            edge + (-3 if left else 3), depth, shorten(text), ha="right" if left else "left", va="center"
        )

    def join(self, first: float, last: float, depth: float) -> None:
        """Draws a bar from one rank to another."""
        reach = 0.012 * (self.worst - 1)
        self._line([self.at(first - reach), self.at(last + reach)], [depth, depth], SERIES[0], 2.4)

    def _line(self, xs: list[float], depths: list[float], colour: str, width: float) -> None:
        heights = [self.height - each for each in depths]
        self.plot.plot(xs, heights, color=colour, linewidth=width, solid_capstyle="butt", clip_on=False)

    def _text(self, x: float, depth: float, text: str, *, ha: str, va: str) -> None:
        self.plot.text(x, self.height - depth, text, fontsize=NAME_SIZE, ha=ha, va=va, clip_on=False)

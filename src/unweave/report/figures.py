"""The figures of a report: losses, forgetting against utility and time, conflict of the gradients.

Each is one SVG element as text (`svg.py`), drawn from one stage of a record.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from unweave.audits.metrics import Axis
from unweave.families import family_of_stage
from unweave.report.labels import Point, shorten, write_names
from unweave.report.numbers import finite, heading
from unweave.report.rows import Row, rows
from unweave.report.svg import DASHES, FAINT, INK, SERIES, axes, svg, ticks

Curve = Sequence[Sequence[float | None]]

REFERENCES = ("retrain", "calibration")


def losses(stage: Mapping[str, Any]) -> dict[str, str]:
    """One figure per method: its losses on the forget set, with Retrain's there and on held-out examples.

    Each curve is the share of examples per bin. The horizontal axis is logarithmic if the bins are.
    """
    histograms = stage.get("histograms", {})
    shares = {name: _shares(histogram["counts"]) for name, histogram in histograms.items()}
    top = 1.08 * max((max(share) for share in shares.values()), default=0.0) or 1.0
    names = [row.name for row in rows(stage) if row.name in histograms and row.name not in REFERENCES]
    return {name: _losses(name, histograms[name]["edges"], shares, top) for name in names}


def tradeoff(stage: Mapping[str, Any]) -> str | None:
    """Forgetting against utility, each minus Retrain's; a point's area is its time.

    The metrics of the family say which two are drawn: for a classifier UA and TA, for a generator UA and RA.
    The box is the margin within which a method counts as equal to Retrain. None without a finite point.
    """
    forgetting, utility = drawn_metric(stage, "forgetting"), drawn_metric(stage, "utility")
    if forgetting is None or utility is None:
        return None
    marks = [(row, point) for row in rows(stage) if (point := _point(row, forgetting, utility)) is not None]
    if not marks:
        return None
    margins = stage["margins"] or {}
    width, height = finite(margins.get(forgetting)), finite(margins.get(utility))
    with axes(4.0, 3.5) as (figure, plot):
        _target(plot, width, height)
        _scale(plot, width or 1.0, height or 1.0)
        for row, point in marks:
            _mark(plot, row, point)
        _times(plot)
        plot.margins(0.12)
        plot.set_xlabel(f"Forgetting: {heading(forgetting)} minus Retrain's, points")
        plot.set_ylabel(f"Utility: {heading(utility)} minus Retrain's, points")
        # Names are placed in pixels, which only a finished layout has.
        figure.draw_without_rendering()
        names, points = [row.name for row, _ in marks], [point for _, point in marks]
        write_names(plot, names, points, figure.dpi / 72, keep=[(0.0, 0.0)])
        return svg(figure, f"Forgetting against utility and time of {len(marks)} methods")


def conflict(stage: Mapping[str, Any]) -> str | None:
    """The cosine of the retain and the forget gradient over the steps; its reliability as a thin line.

    Only traces of the conflict probe have a split-half reliability; losses have none, and are not drawn here.
    """
    by_method = {
        row.name: _cosine_curve(stage["methods"][row.name])
        for row in rows(stage)
        if row.name in stage["methods"]
    }
    curves = {name: curve for name, curve in by_method.items() if curve is not None}
    if not curves:
        return None
    with axes(4.0, 3.5) as (figure, plot):
        plot.axhline(0, color=FAINT, linewidth=0.8)
        for i, (method, curve) in enumerate(curves.items()):
            _curve(plot, shorten(method), curve, colour=SERIES[i % len(SERIES)], dash=DASHES[i % len(DASHES)])
        plot.set_ylim(-1.05, 1.05)
        plot.set_xlabel("Step")
        plot.set_ylabel("Cosine of the two gradients")
        plot.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=2.6)
        return svg(figure, f"Conflict of the gradients: {', '.join(curves)}")


def attack_curves(stage: Mapping[str, Any]) -> dict[str, str]:
    """One figure per curve of an attack: of the model, the original and retrained models, in percent."""
    curves = stage.get("attacks", {}).get("curves", [])
    return {f"{each['attack']}: {each['figure']}": _attack_curve(each) for each in curves}


def _attack_curve(curve: Mapping[str, Any]) -> str:
    with axes(2.6, 1.8) as (figure, plot):
        for each in curve["retrained"]:
            plot.plot([100 * value for value in each], color=SERIES[1], linewidth=0.7, alpha=0.6)
        if curve["original"] is not None:
            plot.plot([100 * value for value in curve["original"]], color=INK, linestyle=":", linewidth=1.3)
        plot.plot([100 * value for value in curve["model"]], color=SERIES[0], linewidth=1.6)
        plot.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        plot.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        plot.set_xlabel("Step")
        return svg(
            figure, f"{curve['attack']} {curve['figure']}: the model, the original and retrained models"
        )


def _losses(name: str, edges: Sequence[float], shares: Mapping[str, Sequence[float]], top: float) -> str:
    with axes(2.6, 1.8) as (figure, plot):
        plot.stairs(shares[name], edges, fill=True, color=SERIES[0], alpha=0.35, linewidth=0)
        plot.stairs(shares[name], edges, color=SERIES[0], linewidth=1.2, baseline=None)
        for reference, colour, dash in (("retrain", SERIES[1], "-"), ("calibration", INK, ":")):
            if reference in shares:
                plot.stairs(
                    shares[reference], edges, color=colour, linestyle=dash, linewidth=1.3, baseline=None
                )
        # Bins that grow a hundredfold are meant for a logarithmic axis, which a first edge of zero forbids.
        if edges[0] > 0 and edges[-1] / edges[0] > 100:
            plot.set_xscale("log")
            ticks(plot.xaxis, [10.0**power for power in range(-8, 9, 2)])
            plot.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        plot.set_ylim(0, top)
        plot.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        plot.set_xlabel("Loss, nats")
        plot.set_ylabel("Share of examples")
        return svg(figure, f"Losses on the forget set: {name} and Retrain")


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def drawn_metric(stage: Mapping[str, Any], axis: Axis) -> str | None:
    """The metric of the stage's family that an axis shows; None if there is none."""
    metrics = family_of_stage(stage).metrics
    return next((name for name, metric in metrics.items() if metric.axis == axis), None)


def _point(row: Row, forgetting: str, utility: str) -> Point | None:
    """Differences of both metrics from Retrain's, points; None for Retrain and for failures."""
    if row.kind == "reference" or row.status == "FAILED" or not {forgetting, utility} <= row.scores.keys():
        return None
    x, y = row.scores[forgetting].gap, row.scores[utility].gap
    return None if x is None or y is None else (x, y)


def _target(plot: Axes, width: float | None, height: float | None) -> None:
    plot.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    plot.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    plot.plot([0], [0], marker="+", markersize=11, markeredgewidth=1.6, color=INK, zorder=3)
    if width is not None and height is not None:
        plot.fill_between(
            [-width, width], -height, height, color=SERIES[2], alpha=0.16, linewidth=0, zorder=0
        )


def _scale(plot: Axes, width: float, height: float) -> None:
    # Good methods crowd around Retrain while bad ones lie tens of points away: logarithmic beyond the margin.
    plot.set_xscale("symlog", linthresh=width, linscale=1.2)
    plot.set_yscale("symlog", linthresh=height, linscale=1.2)
    for axis, threshold in ((plot.xaxis, width), (plot.yaxis, height)):
        magnitudes = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100) if tick >= threshold / 2]
        ticks(axis, [-tick for tick in magnitudes] + [0] + magnitudes)
        axis.set_major_formatter(
            lambda value, _: f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0"
        )


def _mark(plot: Axes, row: Row, point: Point) -> None:
    colour, marker = (SERIES[1], "s") if row.kind == "original" else (SERIES[0], "o")
    size = _area(row.cost)
    plot.scatter(*point, s=size, color=colour, alpha=0.75, linewidth=0, marker=marker, zorder=2)


def _times(plot: Axes) -> None:
    for cost in (0.1, 0.5, 1.0):
        plot.scatter([], [], s=_area(cost), color=SERIES[0], alpha=0.75, linewidth=0, label=f"{cost:g}")
    placement = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    legend = plot.legend(title="Time, relative to one retrain", frameon=False, ncols=3, **placement)
    legend.get_title().set_fontsize(8.5)


def _area(cost: float | None) -> float:
    """Area in square points; an unmeasured time counts as zero, and the scale ends at two retrains."""
    return 14 + 90 * min(cost or 0.0, 2.0)


def _cosine_curve(method: Mapping[str, Any]) -> Curve | None:
    return next(
        (curve for curve in method["trace"].values() if any(half is not None for *_, half in curve)), None
    )


def _curve(plot: Axes, name: str, curve: Curve, *, colour: str, dash: str) -> None:
    steps, values, halves = (
        [float("nan") if x is None else x for x in column] for column in zip(*curve, strict=True)
    )
    for heights, width, alpha, label in ((values, 1.6, 1.0, name), (halves, 0.6, 0.5, None)):
        plot.plot(steps, heights, color=colour, linestyle=dash, linewidth=width, alpha=alpha, label=label)

"""The tables and the figure of `mechanism.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mechanism_statistics import ALPHAS, MODES
from rows import Row


def table_text(record: Row) -> str:
    """The tables of a record in Markdown."""
    results: Mapping[str, Row] = record["summary"]
    tables = (aligned(results), gaps(results), correlations(results))
    return "\n".join(text for table in tables for text in table)


def aligned(results: Mapping[str, Row]) -> list[str]:
    """How the cosine answers to alpha."""
    pairs = [(name, mode) for name in results for mode in MODES]
    nested_runs = [(name, "nested") for name in results]
    looks = {
        name: [f"{each['looks'][key]:.0%}" for key in ("undefined", "outside")]
        for name, each in results.items()
    }
    return [
        *by_alpha(results, pairs, "cosine", "Cosine, minus joint's"),
        *by_alpha(
            results, nested_runs, "cosine", "Cosine, minus that of joint at equal forgetting", kind="beyond"
        ),
        *by_alpha(
            results,
            nested_runs,
            "held_out_cosine",
            "Cosine with the gradient on held-out data, minus joint's",
        ),
        *by_alpha(results, nested_runs, "disattenuated", "Disattenuated cosine, minus joint's"),
        *rows_of("Looks at which that is undefined, or outside [-1, 1]", ["undefined", "outside"], looks),
    ]


def gaps(results: Mapping[str, Row]) -> list[str]:
    """How the distance to the retrained model answers to alpha."""
    pairs = [(name, mode) for name in results for mode in MODES]
    nested_runs = [(name, "nested") for name in results]
    scores = {
        name: (each["original"], each["runs"]["joint x1"]["gap"], each["best joint"])
        for name, each in results.items()
    }
    around = {
        name: [f"{results[name]['floor']:.2f}", *map(format_score, three)] for name, three in scores.items()
    }
    return [
        *rows_of("Mean gap", ["two retrained models", "original", "joint", "joint, best weight"], around),
        *by_alpha(results, pairs, "gap", "Mean gap, minus joint's"),
        *by_alpha(
            results, nested_runs, "gap", "Mean gap, minus that of joint at equal forgetting", kind="beyond"
        ),
        *by_alpha(
            results,
            nested_runs,
            "tv",
            "Total variation on F, minus joint's at equal forgetting",
            kind="beyond",
        ),
    ]


def correlations(results: Mapping[str, Row]) -> list[str]:
    """Trends with alpha, and of alignment with the gap."""
    kinds = [(key, mode) for key in ("cosine", "gap") for mode in MODES]
    trends = {
        name: [format_score(each["trend"][key][mode]) for key, mode in kinds]
        for name, each in results.items()
    }
    pairs = {
        name: list(map(format_score, each["correlation"]["cosine"].values()))
        for name, each in results.items()
    }
    views = list(next(iter(results.values()))["correlation"]["cosine"])
    return [
        *rows_of(
            "Rank correlation with alpha within a seed", [f"{key}, {mode}" for key, mode in kinds], trends
        ),
        *rows_of("Rank correlation of cosine and mean gap", views, pairs),
    ]


def rows_of(title: str, columns: Sequence[str], lines: Mapping[str, Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    head = [f"\n**{title}**\n", "| | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    return head + [f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items()]


def by_alpha(
    results: Mapping[str, Row], rows: Sequence[tuple[str, str]], key: str, title: str, *, kind: str = "change"
) -> list[str]:
    """A quantity over alphas, one line per setting and mode."""
    lines = {}
    for name, mode in rows:
        runs = results[name]["runs"]
        cells = [cell(runs[f"{mode} {alpha:g}"], f"{kind} {key}") for alpha in ALPHAS]
        lines[f"{name}: {mode}"] = [format_score(runs["joint x1"][key]), *cells]
    return rows_of(title, ["joint", *(f"alpha {alpha:g}" for alpha in ALPHAS)], lines)


def cell(run: Row, key: str) -> str:
    """An estimate, and on how many seeds there was none."""
    refusal = f"refused on {run['refused']}" if run["refused"] else ""
    count = (
        f"on {run[key]['n']} seeds"
        if run[key]["n"] and not refusal and run[key]["n"] < run["gap"]["n"]
        else ""
    )
    return (
        " ".join(part for part in (format_score(run[key]) if run[key]["n"] else "", refusal, count) if part)
        or "none"
    )


def format_score(score: Mapping[str, Any]) -> str:
    """An estimate with its interval."""
    if score["mean"] is None or np.isnan(score["mean"]):
        return "none"
    low, high = score["low"], score["high"]
    ends = "" if low is None or np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{score['mean']:.2f}{ends}".replace("-0.00", "0.00")


PANELS = {
    "change cosine": "cosine,\nminus joint's",
    "change gap": "mean gap,\nminus joint's",
    "beyond gap": "mean gap, minus joint's\nat equal forgetting",
}
COLOURS = {"exact": "#0072b2", "nested": "#d55e00", "lagged": "#009e73"}


def draw_figure(record: Row) -> Figure:
    """Alignment and gap against alpha, one column per setting."""
    figure = Figure(figsize=(11, 5.8), layout="constrained", facecolor="white")
    panels = figure.subplots(len(PANELS), len(record["summary"]), sharex=True, sharey="row", squeeze=False)
    for column, (name, results) in enumerate(record["summary"].items()):
        panels[0, column].set_title(name.replace(", twice", ",\ntwice"), fontsize=9)
        panels[-1, column].set_xlabel("alpha")
        for panel, key in zip(panels[:, column], PANELS, strict=True):
            panel.axhline(0, color="#888888", linewidth=0.8)
            panel.set_xscale("log")
            panel.tick_params(labelsize=8)
            for i, mode in enumerate(MODES):
                line(
                    panel,
                    mode,
                    [results["runs"][f"{mode} {alpha:g}"][key] for alpha in ALPHAS],
                    1.07 ** (i - 1),
                )
    for panel, title in zip(panels[:, 0], PANELS.values(), strict=True):
        panel.set_ylabel(title, fontsize=9)
    panels[0, 0].legend(frameon=False, fontsize=8)
    return figure


def save_figure(record: Row, path: Path) -> None:
    """Writes the figure as SVG, the same bytes for the same record."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "unweave"}):
        draw_figure(record).savefig(path, format="svg", metadata={"Date": None})


def line(panel: Axes, mode: str, scores: Sequence[Row], factor: float) -> None:
    """One mode: means over seeds and their intervals, where all seeds ran or most."""
    points = [(alpha * factor, score) for alpha, score in zip(ALPHAS, scores, strict=True) if score["n"] > 3]
    middle = [score["mean"] for _, score in points]
    reach = np.array([[score["mean"] - score["low"], score["high"] - score["mean"]] for _, score in points]).T
    style = {"marker": "o", "markersize": 3, "linewidth": 1, "capsize": 2}
    panel.errorbar([x for x, _ in points], middle, yerr=reach, color=COLOURS[mode], label=mode, **style)

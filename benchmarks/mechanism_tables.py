"""The statistics, tables and figure of `mechanism.py`.

The unit of replication is the training seed. Intervals are 95 % t intervals over seeds of differences within
a seed; those of rank correlations resample whole seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from unweave.audits.classifier.metrics import GAP, METRICS
from unweave.audits.metrics import mean_gap
from unweave.audits.score import interval

Row = dict[str, Any]
Values = np.ndarray  # one number per seed
Run = tuple[str, float, float]  # mode, alpha, weight of the forget loss relative to the setting's

MODES = ("exact", "nested", "lagged")
ALPHAS = (0.01, 0.03, 0.1, 0.3, 1.0)
WEIGHTS = tuple(2 ** (k / 2) for k in range(-4, 5))
JOINT: Run = ("joint", 0.0, 1.0)
AHEAD: list[Run] = [(mode, alpha, 1.0) for mode in MODES for alpha in ALPHAS]
WEIGHED: list[Run] = [("joint", 0.0, weight) for weight in WEIGHTS]
RESAMPLES = 2000


def of_gap(values: Mapping[str, float]) -> dict[str, float]:
    """The four of the mean gap."""
    return {name: values[name] for name in GAP}


class Table:
    """The rows of one setting, as one number per seed for each run.

    Args:
        rows: What `runs_of` returned, for all seeds.
        setting: The name.
    """

    def __init__(self, rows: Sequence[Row], setting: str) -> None:
        ours = [row for row in rows if row["setting"] == setting]
        self.seeds = sorted({row["seed"] for row in ours})
        self.rows = {(row["mode"], row["alpha"], row["weight"], row["seed"]): row for row in ours}

    def of(self, run: Run, key: str) -> Values:
        """The values over seeds; NaN where the run was refused or nothing could be measured."""
        results = [self.rows[(*run, seed)].get(key) for seed in self.seeds]
        return np.array([np.nan if value is None else value for value in results], float)

    def change(self, run: Run, key: str) -> Values:
        """The difference to joint of the same seed."""
        return self.of(run, key) - self.of(JOINT, key)

    def beyond(self, run: Run, key: str) -> Values:
        """The difference to a joint descent that ends at the same forget loss.

        Interpolated over the weights, the gap in its four signed parts; NaN outside their range.
        """
        level = self.of(run, "forget_loss")
        parts = np.array([self.joint_at(level, each) for each in (GAP if key == "gap" else (key,))])
        return self.of(run, key) - (np.abs(parts).mean(0) if key == "gap" else parts[0])

    def joint_at(self, level: Values, key: str) -> Values:
        """What joint has where its forget loss is at this level."""
        x = np.array([self.of(run, "forget_loss") for run in WEIGHED])
        y, order = np.array([self.of(run, key) for run in WEIGHED]), x.argsort(axis=0)
        x, y = np.take_along_axis(x, order, 0), np.take_along_axis(y, order, 0)
        return np.array(
            [np.interp(v, x[:, i], y[:, i], left=np.nan, right=np.nan) for i, v in enumerate(level)]
        )

    def floor(self) -> float:
        """The mean gap of two retrained models, over all pairs of seeds."""
        retrained = [of_gap(self.rows[("retrained", 0.0, 0.0, seed)]) for seed in self.seeds]
        return float(np.mean([mean_gap(a, b, METRICS) for a, b in combinations(retrained, 2)] or [np.nan]))


def estimate(values: Values) -> Row:
    """Mean and 95 % t interval over the seeds that have a value; a few have no interval."""
    measured = values[~np.isnan(values)]
    low, high = interval(measured.tolist())
    return {
        "mean": float(measured.mean()) if len(measured) else None,
        "low": low,
        "high": high,
        "n": len(measured),
    }


def spearman(a: Values, b: Values) -> float:
    """Rank correlation over the pairs that are known; NaN if a side does not vary."""
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = rankdata(a[both]), rankdata(b[both])
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() * b.std() > 0 else float("nan")


def trend(table: Table, mode: str, key: str) -> Row:
    """The rank correlation of a quantity with alpha within each seed; joint is alpha 0."""
    runs = [JOINT, *(run for run in AHEAD if run[0] == mode)]
    values = np.array([table.of(run, key) for run in runs])
    return estimate(np.array([spearman(np.arange(len(runs)), column) for column in values.T]))


def correlation(pairs: Callable[[Run, str], Values], runs: Sequence[Run], aligned: str) -> Row:
    """Rank correlation of alignment with the gap over runs and seeds; the interval resamples whole seeds."""
    a, b = (np.array([pairs(run, key) for run in runs]) for key in (aligned, "gap"))
    draws = np.random.default_rng(0).integers(a.shape[1], size=(RESAMPLES, a.shape[1]))
    resampled = [spearman(a[:, seeds].ravel(), b[:, seeds].ravel()) for seeds in draws]
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    count = int((~np.isnan(a + b)).sum())
    return {"mean": spearman(a.ravel(), b.ravel()), "low": float(low), "high": float(high), "n": count}


ALIGNED = (
    "cosine",
    "disattenuated",
    "held_out_cosine",
    "ascent_cosine",
    "end_cosine",
    "inner",
    "reliability",
    "imbalance",
)
ENDS = (*GAP, "gap", "tv", "forget_loss", "clipped", "moved", "retain_norm", "forget_norm")


def summary(table: Table) -> Row:
    """Everything that the page says about a setting."""
    views = {
        "as they are": (table.of, AHEAD),
        "minus joint's": (table.change, AHEAD),
        "at equal forgetting": (table.beyond, AHEAD),
        "joint alone, over its weights": (table.change, [run for run in WEIGHED if run != JOINT]),
    }
    looks = np.array(
        [each for row in table.rows.values() if "looks" in row for each in row["looks"]["disattenuated"]]
    )
    return {
        "original": estimate(table.of(("original", 0.0, 0.0), "gap")),
        "floor": table.floor(),
        "best joint": min(
            (estimate(table.of(run, "gap")) for run in WEIGHED), key=lambda score: score["mean"]
        ),
        "looks": {"undefined": float(np.isnan(looks).mean()), "outside": float((np.abs(looks) > 1).mean())},
        "runs": {label(run): describe_run(table, run) for run in [*AHEAD, *WEIGHED]},
        "trend": {key: {mode: trend(table, mode, key) for mode in MODES} for key in (*ALIGNED, "gap")},
        "correlation": {
            key: {view: correlation(*how, key) for view, how in views.items()} for key in ALIGNED[:3]
        },
    }


def describe_run(table: Table, run: Run) -> Row:
    """One run over the seeds: as it is, minus joint's, and minus that of joint at equal forgetting."""
    whole = {key: estimate(table.of(run, key)) for key in (*ALIGNED, *ENDS)}
    change = {f"change {key}": estimate(table.change(run, key)) for key in (*ALIGNED, "gap", "tv")}
    beyond = {
        f"beyond {key}": estimate(table.beyond(run, key)) for key in (*ALIGNED[:3], "gap", "tv", "ra", "ta")
    }
    refused = sum("refused" in table.rows[(*run, seed)] for seed in table.seeds)
    return {**whole, **change, **beyond, "refused": refused}


def label(run: Run) -> str:
    """The name of a run in the record."""
    mode, alpha, weight = run
    return f"{mode} {alpha:g}" if mode != "joint" else f"joint x{weight:.3g}"


def table_text(record: Row) -> str:
    """The tables of a record in Markdown."""
    results: Mapping[str, Row] = record["summary"]
    tables = (aligned(results), gaps(results), correlations(results))
    return "\n".join(text for table in tables for text in table)


def aligned(results: Mapping[str, Row]) -> list[str]:
    """How the cosine answers to alpha."""
    every = [(name, mode) for name in results for mode in MODES]
    nested = [(name, "nested") for name in results]
    looks = {
        name: [f"{each['looks'][key]:.0%}" for key in ("undefined", "outside")]
        for name, each in results.items()
    }
    return [
        *by_alpha(results, every, "cosine", "Cosine, minus joint's"),
        *by_alpha(
            results, nested, "cosine", "Cosine, minus that of joint at equal forgetting", kind="beyond"
        ),
        *by_alpha(
            results, nested, "held_out_cosine", "Cosine with the gradient on held-out data, minus joint's"
        ),
        *by_alpha(results, nested, "disattenuated", "Disattenuated cosine, minus joint's"),
        *rows_of("Looks at which that is undefined, or outside [-1, 1]", ["undefined", "outside"], looks),
    ]


def gaps(results: Mapping[str, Row]) -> list[str]:
    """How the distance to the retrained model answers to alpha."""
    every = [(name, mode) for name in results for mode in MODES]
    nested = [(name, "nested") for name in results]
    scores = {
        name: (each["original"], each["runs"]["joint x1"]["gap"], each["best joint"])
        for name, each in results.items()
    }
    around = {
        name: [f"{results[name]['floor']:.2f}", *map(format_score, three)] for name, three in scores.items()
    }
    return [
        *rows_of("Mean gap", ["two retrained models", "original", "joint", "joint, best weight"], around),
        *by_alpha(results, every, "gap", "Mean gap, minus joint's"),
        *by_alpha(results, nested, "gap", "Mean gap, minus that of joint at equal forgetting", kind="beyond"),
        *by_alpha(
            results, nested, "tv", "Total variation on F, minus joint's at equal forgetting", kind="beyond"
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
    refused = f"refused on {run['refused']}" if run["refused"] else ""
    missing = (
        f"on {run[key]['n']} seeds"
        if run[key]["n"] and not refused and run[key]["n"] < run["gap"]["n"]
        else ""
    )
    return (
        " ".join(part for part in (format_score(run[key]) if run[key]["n"] else "", refused, missing) if part)
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


def line(panel: Axes, mode: str, scores: Sequence[Row], factor: float) -> None:
    """One mode: means over seeds and their intervals, where all seeds ran or most."""
    points = [(alpha * factor, score) for alpha, score in zip(ALPHAS, scores, strict=True) if score["n"] > 3]
    middle = [score["mean"] for _, score in points]
    reach = np.array([[score["mean"] - score["low"], score["high"] - score["mean"]] for _, score in points]).T
    style = {"marker": "o", "markersize": 3, "linewidth": 1, "capsize": 2}
    panel.errorbar([x for x, _ in points], middle, yerr=reach, color=COLOURS[mode], label=mode, **style)


def to_json(value: Any) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """The value with five significant digits, and null for NaN."""
    if isinstance(value, Mapping):
        return {key: to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if isinstance(value, float):
        return None if np.isnan(value) else float(f"{value:.5g}")
    return value

"""The statistics of `mechanism.py`.

The unit of replication is the training seed. Intervals are 95 % t intervals over seeds of differences within
a seed; those of rank correlations resample whole seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
from rows import Row
from scipy.stats import rankdata

from unweave.audits.classifier.metrics import GAP, METRICS
from unweave.audits.metrics import mean_gap
from unweave.audits.score import interval

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
    numbers = values[~np.isnan(values)]
    low, high = interval(numbers.tolist())
    return {
        "mean": float(numbers.mean()) if len(numbers) else None,
        "low": low,
        "high": high,
        "n": len(numbers),
    }


def spearman(a: Values, b: Values) -> float:
    """Rank correlation over the pairs that are known; NaN if a side does not vary."""
    is_known = ~(np.isnan(a) | np.isnan(b))
    a, b = rankdata(a[is_known]), rankdata(b[is_known])
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
    correlations = [spearman(a[:, seeds].ravel(), b[:, seeds].ravel()) for seeds in draws]
    low, high = np.nanpercentile(correlations, [2.5, 97.5])
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
    estimates = {key: estimate(table.of(run, key)) for key in (*ALIGNED, *ENDS)}
    change = {f"change {key}": estimate(table.change(run, key)) for key in (*ALIGNED, "gap", "tv")}
    beyond = {
        f"beyond {key}": estimate(table.beyond(run, key)) for key in (*ALIGNED[:3], "gap", "tv", "ra", "ta")
    }
    refusals = sum("refused" in table.rows[(*run, seed)] for seed in table.seeds)
    return {**estimates, **change, **beyond, "refused": refusals}


def label(run: Run) -> str:
    """The name of a run in the record."""
    mode, alpha, weight = run
    return f"{mode} {alpha:g}" if mode != "joint" else f"joint x{weight:.3g}"

"""A synthetic record for tests: every shape that a real one can take, with numbers that no run produced."""

import copy
import math
import random
from typing import Any

from unweave.bench.frontier import frontier

METRICS = {
    "ua": (9.0, "match"),
    "ra": (99.5, "match"),
    "ta": (91.2, "match"),
    "mia": (21.0, "match"),
    "auc": (0.503, "match"),
    "tv": (0.081, "lower"),
    "rank": (0.902, "higher"),
    "js": (0.0321, "lower"),
    "agreement_forget": (93.4, "higher"),
    "agreement_test": (94.1, "higher"),
    "streisand": (1.02, "match"),
}
MARGINS = {"ua": 1.31, "ra": 0.5, "ta": 0.97, "auc": 0.0213, "tv": 0.0944}
# Name: distance from Retrain in units of the margin, cost relative to a retrain, verdict.
METHODS = {
    "lur": (0.55, 0.31, "PASS"), "lur-exact": (0.5, 0.47, "PASS"), "lur-match": (0.2, 0.41, "PASS"),
    "joint": (1.6, 0.21, "FAIL"), "joint-match": (0.35, 0.3, "PASS"), "short-retrain": (-2.4, 0.3, "FAIL"),
    "shrink": (1.9, 0.26, "FAIL"), "finetune": (-3.2, 0.2, "FAIL"), "ascent": (6.5, 0.02, "FAIL"),
    "random-label": (-2.1, 0.22, "FAIL"), "neggrad+": (2.7, 0.27, "FAIL"), "l1-sparse": (-2.9, 0.24, "FAIL"),
    "salun": (1.2, 0.25, "INCONCLUSIVE"), "scissorhands": (1.1, 0.5, "INCONCLUSIVE"),
    "msg": (1.0, 0.33, "INCONCLUSIVE"),
    "ct": (0.9, 0.36, "INCONCLUSIVE"), "original": (-7.3, 0.0, "FAIL"), "retrain": (0.1, 1.0, "PASS"),
}  # fmt: skip


def synthetic() -> dict[str, Any]:
    """Two stages: `trace` with every method, one failed with NaN; `class` with two seeds, no margins."""
    return {
        "schema": "unweave.record/2",
        "environment": {
            "date": "2026-01-02",
            "code": "0" * 64,
            "python": "3.11.0",
            "packages": {"unweave": "0.1.0", "torch": "2.9.0"},
            "devices": [],
        },
        "stages": {"trace": _stage(random.Random(0)), "class": _small(random.Random(1))},
    }


def few() -> dict[str, Any]:
    """The stage `trace` alone with two methods and a failed one: the same shapes, faster to validate."""
    record = synthetic()
    stage = record["stages"]["trace"]
    methods = {name: stage["methods"][name] for name in ("lur", "original", "diverged")}
    return record | {"stages": {"trace": stage | {"methods": methods}}}


def at_budgets(*budgets: float) -> dict[str, Any]:
    """The stage `trace` at several budgets, gaps and costs in proportion, with the frontier of the three."""
    record, stages = synthetic(), {}
    for budget in budgets:
        stage = copy.deepcopy(record["stages"]["trace"])
        stage["reference"]["gradient_evaluations"] = 3400
        for name in stage["methods"].keys() - {"original", "retrain", "diverged"}:
            row = stage["methods"][name]
            row["gap"] |= {end: row["gap"][end] * 0.3 / budget for end in ("mean", "low", "high")}
            row |= {"gradient_evaluations": 3400 * budget, "cost": 1.2 * budget}
            gaps = [each * 0.3 / budget for each in row["per_seed"]["gap"]]
            row["per_seed"] |= {"gap": gaps, "cost": [1.2 * budget] * 10}
            if budget <= 0.1:
                row |= {"verdict": "FAIL", "reason": _reason("FAIL")}
        stages[budget] = stage
    stages_by_name = {f"trace@{budget}": stage for budget, stage in stages.items()}
    return record | {"stages": stages_by_name, "frontier": {"trace": frontier(stages)}}


def cheap_to_draw(record: dict[str, Any]) -> dict[str, Any]:
    """The record with four methods a stage at most and without histograms: its page draws few figures."""
    names = ("lur", "joint", "original", "retrain")
    stages = {
        name: stage
        | {"methods": {each: stage["methods"][each] for each in names if each in stage["methods"]}}
        for name, stage in record["stages"].items()
    }
    return record | {"stages": {name: stage | {"histograms": {}} for name, stage in stages.items()}}


def score(metric: str, value: float, rng: random.Random) -> dict[str, Any]:
    centre, direction = METRICS[metric]
    half = abs(centre) * 0.004 * (1 + rng.random())
    return {
        "value": value, "low": value - half, "high": value + half, "n": 10, "reference": centre,
        "null_band": [centre - 2 * half, centre + 2 * half], "gap": value - centre, "direction": direction,
    }  # fmt: skip


def method(name: str, rng: random.Random) -> dict[str, Any]:
    distance, cost, verdict = METHODS[name]
    values = {metric: _moved(metric, distance * rng.uniform(0.7, 1.3)) for metric in METRICS}
    parts = {part: abs(values[part] - METRICS[part][0]) for part in ("ua", "ra", "ta", "mia")}
    mean = sum(parts.values()) / 4
    return {
        "repr": f"{name.title()}(alpha=0.1, weight=0.3, how=Descent(optimizer='sgd', lr=0.05, steps=350))",
        "scores": {metric: score(metric, values[metric], rng) for metric in METRICS},
        "gap": {"mean": mean, "low": mean * 0.9, "high": mean * 1.1, "of_means": mean * 0.83, "parts": parts},
        "verdict": verdict,
        "reason": _reason(verdict),
        "seconds": 4.1 * cost + 0.013,
        "cost": cost,
        "peak_mib": 310.5 + 40 * cost,
        "gradient_evaluations": round(3400 * cost),
        "trace": _trace(name, rng),
        "failed": None,
        "per_seed": _per_seed(name, values, mean, cost),
    }


def failed(reason: str) -> dict[str, Any]:
    """A method that stopped: NaN numbers in memory, null once written."""
    gap = {
        "mean": math.nan,
        "low": None,
        "high": None,
        "of_means": math.nan,
        "parts": dict.fromkeys(("ua", "ra", "ta", "mia")),
    }
    rng = random.Random(2)
    nans = {"value": math.nan, "low": math.nan, "high": math.nan, "gap": math.nan}
    return method("ascent", rng) | {
        "scores": {metric: score(metric, math.nan, rng) | nans for metric in METRICS},
        "gap": gap, "reason": "", "seconds": 0.4, "cost": None, "peak_mib": None,
        "failed": reason, "trace": {}, "per_seed": {},
    }  # fmt: skip


def without(record: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy of `record` that lacks the key at the end of `path`."""
    result = copy.deepcopy(record)
    _parent(result, path).pop(path[-1])
    return result


def put(record: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    """A copy of `record` with `value` at the end of `path`."""
    result = copy.deepcopy(record)
    _parent(result, path)[path[-1]] = value
    return result


def _parent(record: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path[:-1]:
        record = record[key]
    return record


def _stage(rng: random.Random) -> dict[str, Any]:
    methods = {name: method(name, rng) for name in METHODS} | {
        "diverged": failed("the loss of nll(forget) is NaN at step 17")
    }
    return {
        "recipe": {
            "model": "mlp",
            "training": {"epochs": 60, "lr": 0.2, "batch": 128},
            "forget": {"fraction": 0.1},
        },
        "seeds": list(range(10)),
        "data": {
            "name": "digits",
            "digest": "ab" * 32,
            "forget": 144,
            "retain": 1293,
            "calibration": 180,
            "test": 180,
        },
        "margins": dict(MARGINS),
        "reference": _reference(rng),
        "methods": methods,
        "floor": 1.23,
        "calibration_seeds": list(range(100, 112)),
        "histograms": {
            name: _histogram(name, rng)
            for name in ("retrain", "calibration", "original", "lur", "lur-match", "ascent")
        },
        "tuned": {
            "against": "proxy",
            "seeds": [1000, 1001],
            "budget": 0.5,
            "limit": None,
            "scale": 1.0,
            "trials": 20,
            "retraining": 240,
        },
        "search": {"lur": [_trial(i, rng) for i in range(20)]},
        "comparisons": [
            {
                "metric": "gap",
                "first": "lur",
                "second": "joint",
                "difference": -0.02,
                "p": 0.00002,
                "p_holm": 0.0004,
            },
            {
                "metric": "gap",
                "first": "lur-match",
                "second": "short-retrain",
                "difference": -1.87,
                "p": 0.00195,
                "p_holm": 0.0313,
            },
        ],
    }


def _small(rng: random.Random) -> dict[str, Any]:
    stage = _stage(rng)
    for name in ("floor", "calibration_seeds", "histograms", "tuned", "search", "comparisons"):
        del stage[name]
    stage["methods"] = {name: stage["methods"][name] for name in ("lur", "finetune", "original")}
    for each in stage["methods"].values():
        each["per_seed"] = {name: numbers[:2] for name, numbers in each["per_seed"].items()}
        each |= {
            "verdict": "INCONCLUSIVE",
            "reason": "INCONCLUSIVE: no verdict: 2 seeds, 10 needed",
            "trace": {},
        }
    return stage | {"seeds": [0, 1], "margins": None}


def _reference(rng: random.Random) -> dict[str, Any]:
    scores = {metric: score(metric, centre, rng) | {"gap": None} for metric, (centre, _) in METRICS.items()}
    return {"scores": scores, "null_band": {metric: each["null_band"] for metric, each in scores.items()}}


def _moved(metric: str, distance: float) -> float:
    """A metric's value that many margins away, held in its range: negative is under-forgetting."""
    centre, _ = METRICS[metric]
    margin = MARGINS.get(metric, 0.05 * abs(centre))
    values = {"ra": centre - 0.4 * abs(distance) * margin, "ta": centre - 0.5 * abs(distance) * margin}
    values |= {"auc": centre - distance * margin, "rank": centre - 0.4 * abs(distance) * margin}
    if metric in ("tv", "js"):
        return centre + 0.1 * abs(distance) * margin
    return values.get(metric, max(0.0, centre + distance * margin))


def _reason(verdict: str) -> str:
    return {
        "PASS": "PASS: every tested figure lies within its margin of the retrained models'",
        "FAIL": "FAIL: over-forgetting: UA is 4.2 above the retrained models', beyond the margin of 1.31",
        "INCONCLUSIVE": "INCONCLUSIVE: AUC may differ by more than its margin: more seeds are needed to tell",
    }[verdict]


def _trace(name: str, rng: random.Random) -> dict[str, list[list[float | None]]]:
    start = {"lur": -0.75, "lur-exact": -0.7, "joint": -0.8, "lur-match": 0.4}.get(name)
    if start is None:
        return {}
    cosine = [
        [step, start + (0.8 - start) * step / 400 * 0.7 + rng.gauss(0, 0.04), rng.uniform(0.6, 0.9)]
        for step in range(0, 360, 20)
    ]
    return {"cosine": cosine, "nll(retain)": [[step, 2 / (1 + step), None] for step in range(0, 360, 20)]}


def _per_seed(name: str, values: dict[str, float], gap: float, cost: float) -> dict[str, list[float]]:
    rng = random.Random(name)
    figures = {"gap": gap, "seconds": 4.1 * cost + 0.013, "cost": cost, **values}
    figures |= {"retain_retention": values["ra"] / 99.5, "forget_retention": (100 - values["ua"]) / 91}
    figures |= {"test_retention": values["ta"] / 91.2, "indiscernibility": 1 - abs(2 * values["auc"] - 1)}
    figures |= {"t_mia": 1 - abs(2 * values["auc"] - 1)}
    # in pairs around the value, which is the mean of the seeds, or their median
    return {
        key: [
            value * (1 + side * each)
            for each in (0.04, 0.08, 0.12, 0.16, rng.uniform(0, 0.2))
            for side in (-1, 1)
        ]
        for key, value in figures.items()
    }


def _histogram(name: str, rng: random.Random) -> dict[str, list[float]]:
    edges = [10 ** (-4 + 0.2 * i) for i in range(29)]
    centre = {"original": 6, "lur": 13, "ascent": 25}.get(name, 14)
    counts = [round(1440 * math.exp(-((i - centre) ** 2) / 30) / 9.7) + rng.randrange(5) for i in range(28)]
    return {"edges": edges, "counts": counts}


def _trial(number: int, rng: random.Random) -> dict[str, Any]:
    value = None if number == 7 else rng.uniform(1, 9)
    return {
        "number": number,
        "value": value,
        "settings": {"alpha": rng.uniform(0, 1), "lr": rng.uniform(0.01, 0.3), "steps": 200},
    }

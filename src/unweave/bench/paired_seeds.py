"""Methods seed by seed: their figures, and tests of which is closer to retraining."""

from collections.abc import Mapping, Sequence
from typing import Any

from unweave.audits.metrics import Metric, Values, mean_gap
from unweave.audits.score import compare


def figures_per_seed(
    measurements: Sequence[Mapping[str, Any]],
    references: Sequence[Values],
    seconds: Sequence[float],
    retraining: Sequence[float],
    metrics: Mapping[str, Metric],
) -> dict[str, list[float]]:
    """The figures of a method per seed, for ranks and the columns of other benchmarks.

    Args:
        measurements: The measurements of its cell, per seed.
        references: The metrics of the retrained model, per seed.
        seconds: The time of the method, per seed.
        retraining: The time of the retraining, per seed.
        metrics: The metrics by name.
    """
    pairs = list(zip(measurements, references, strict=True))
    return {
        "gap": [mean_gap(each["values"], reference, metrics) for each, reference in pairs],
        "seconds": list(seconds),
        "cost": [time / full_time for time, full_time in zip(seconds, retraining, strict=True)],
        **{key: [each["values"][key] for each in measurements] for key in measurements[0]["values"]},
        **{
            key: [each["benchmarked"][key] for each in measurements] for key in measurements[0]["benchmarked"]
        },
    }


def comparisons(
    by_method: Mapping[str, Sequence[Values]],
    references: Sequence[Values],
    ours: str,
    metrics: Mapping[str, Metric],
    distance: str,
) -> list[dict[str, Any]]:
    """One method against every other: exact Wilcoxon tests, with Holm's correction over the others.

    The tests compare the mean gap in points and the distance on the forget set; a negative difference means
    that the first method is closer.

    Args:
        by_method: The metrics of each seed, by method.
        ours: The first method; without it there are no tests.
        references: The metrics of the retrained model of each seed.
        metrics: The metrics by name.
        distance: The metric of the distance of two models on the forget set.
    """
    gaps = {
        name: [mean_gap(one, other, metrics) for one, other in zip(values, references, strict=True)]
        for name, values in by_method.items()
    }
    distances = {name: [each[distance] for each in values] for name, values in by_method.items()}
    return [
        row
        for metric, by_name in (("gap", gaps), (distance, distances))
        if ours in by_method
        for row in compare_metric(metric, ours, by_name)
    ]


def compare_metric(metric: str, ours: str, by_name: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Compares one method with every other, in one metric."""
    other_values = {name: each for name, each in by_name.items() if name not in (ours, "retrain")}
    return [
        {
            "metric": metric,
            "first": ours,
            "second": name,
            "difference": test.difference,
            "p": test.p,
            "p_holm": test.adjusted,
        }
        for name, test in compare(by_name[ours], other_values).items()
    ]

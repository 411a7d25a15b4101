"""What planted evidence shows: figures of models beside originals and retrained ones, and a control."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from unweave.audits.attack import Check
from unweave.audits.attack_result import AttackResult, spread_band, two_way_bootstrap
from unweave.audits.intervals import share_interval
from unweave.audits.score import Interval, Z

PerExample = Float64[np.ndarray, "_ _"] | Bool[np.ndarray, "_ _"]
"""Values [model, example]; kinds of models may differ in number."""

Figures = Mapping[str, PerExample]
"""The values of each figure, which is their mean; those of a share are true or false."""

UNPLANTED = "unplanted"
"""The name, in `AttackResult.besides`, of the figure of models retrained without any planted example."""


@dataclass(frozen=True)
class PlantedReport:
    """The figures of planted evidence.

    Args:
        results: By figure. `retrained` is that of models retrained without the known planted examples, and
            `besides` has that of models retrained without any.
        check: Whether the control holds: originals show what was planted, and models retrained without any of
            it do not.
    """

    results: Mapping[str, AttackResult]
    check: Check


def stack_figures(rows: Mapping[str, Sequence[np.ndarray]]) -> Figures:
    """The values of each figure, from those of each model.

    Raises:
        ValueError: If models were measured on other numbers of examples.
    """
    for name, each in rows.items():
        refuse_other_sizes(name, each)
    return {name: np.array(each) for name, each in rows.items()}


def refuse_other_sizes(name: str, rows: Sequence[np.ndarray]) -> None:
    """Raises if the values of a figure are of other numbers of examples, by model."""
    sizes = {len(row) for row in rows}
    if len(sizes) > 1:
        counts = f"{sorted(sizes)} for {name}"
        raise ValueError(f"all models must be measured on the same examples, found {counts}")


def compare_figures(
    unlearned: Figures, original: Figures, retrained: Figures, unplanted: Figures, cannot: str
) -> dict[str, AttackResult]:
    """Each figure of the unlearned models beside those of the other kinds.

    Raises:
        ValueError: If kinds were measured on other numbers of examples.
    """
    results = {}
    for name, values in unlearned.items():
        refuse_other_sizes(name, [each[name][0] for each in (unlearned, original, retrained, unplanted)])
        interval = interval_of(values)
        retrains = retrained[name].mean(axis=1)
        results[name] = AttackResult(
            interval.value,
            interval.low,
            interval.high,
            float(retrains.mean()),
            spread_band(retrains.tolist()) if len(retrains) > 1 else None,
            cannot,
            float(original[name].mean()),
            besides={UNPLANTED: float(unplanted[name].mean())},
        )
    return results


def interval_of(values: PerExample) -> Interval:
    """The mean with its 95 % interval, over models and examples, or over the examples of one model.

    Of one model, the interval of a share is exact; the mean of a single value has NaN ends.
    """
    if len(values) > 1:
        low, high = two_way_bootstrap(
            values.shape, lambda p, q: float(values[np.ix_(p, q)].mean()), np.random.default_rng(0)
        )
        return Interval(float(values.mean()), low, high)
    (row,) = values
    if row.dtype == bool:
        return share_interval(row.tolist())
    mean = float(row.mean())
    reach = Z * float(row.std(ddof=1)) / len(row) ** 0.5 if len(row) > 1 else math.nan
    return Interval(mean, mean - reach, mean + reach)


def check_control(holds: bool, outcome: str, fault: str = "") -> Check:
    """The outcome of a control: what was measured, and that it is invalid, with the fault, if it fails."""
    return Check(holds, outcome if holds else f"it is invalid: {outcome}{fault}")

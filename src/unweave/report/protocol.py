"""The columns of Deep Unlearn (Cadet et al., arXiv 2410.01276), from the per-seed figures of a record.

They are means and standard deviations over seeds. The benchmark's released code does not contain its order of
methods. Here it is the mean of two ranks in every seed: by the deviation of the three retentions from 1, and
by indiscernibility.
"""

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any, Literal

from unweave.audits.classifier.deep_unlearn import Agreement, agreement
from unweave.report.numbers import finite
from unweave.report.ranking import blocks
from unweave.report.ranks import rank_values

Protocol = Literal["deep-unlearn"]
Record = Mapping[str, Any]
Figures = Mapping[str, Mapping[str, float | int | None]]

SEEDS = 10
RETENTIONS = ("retain_retention", "forget_retention", "test_retention")
COLUMNS = {
    "retain_retention": "Retain retention",
    "forget_retention": "Forget retention",
    "test_retention": "Test retention",
    "indiscernibility": "Indisc.",
    "t_mia": "T-MIA",
    "speed_up": "Speed-up",
}


def has_figures(stage: Record) -> bool:
    """Whether a stage has these figures; stages of generators and of older versions do not."""
    return any("indiscernibility" in row.get("per_seed", {}) for row in stage["methods"].values())


def refuse_unmeasured(record: Record) -> None:
    """Raises a ValueError that names a stage whose record has none of the figures."""
    for name, stage in record["stages"].items():
        if not has_figures(stage):
            raise ValueError(
                f"stage {name!r} has no figures of deep-unlearn, which records of classifiers have: "
                "run its recipe again with unweave bench"
            )


def figures_of(stage: Record) -> dict[str, Figures]:
    """Mean, standard deviation and number of seeds, by method and column; without failed methods."""
    by_method = {name: row.get("per_seed", {}) for name, row in stage["methods"].items()}
    # the untouched original takes no time
    speeds = {
        name: [] if name == "original" else per_seed.get("cost", []) for name, per_seed in by_method.items()
    }
    return {
        name: {
            **{key: summarise(per_seed.get(key, [])) for key in COLUMNS if key != "speed_up"},
            "speed_up": summarise([1 / cost if cost else None for cost in speeds[name]]),
        }
        for name, per_seed in by_method.items()
    }


def summarise(values: list[float | None]) -> dict[str, float | int | None]:
    """Mean, standard deviation and number of the seeds with a number."""
    numbers = [each for each in map(finite, values) if each is not None]
    middle, deviation = mean(numbers) if numbers else None, stdev(numbers) if len(numbers) > 1 else None
    return {"mean": middle, "deviation": deviation, "n": len(numbers)}


def ranks_of(*stages: Record) -> dict[str, float]:
    """The mean rank over seeds and stages of the methods common to all stages, the best first."""
    all_blocks = [block for stage in stages for block in seed_ranks(stage)]
    common = (
        [name for name in all_blocks[0] if all(name in block for block in all_blocks)] if all_blocks else []
    )
    means = {name: mean(block[name] for block in all_blocks) for name in common}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def seed_ranks(stage: Record) -> list[dict[str, float]]:
    """The mean of a method's two ranks, by seed and method; failed methods share the last."""
    retentions = zip(*(blocks(stage, key) for key in RETENTIONS), strict=True)
    deviations = [
        {name: deviation([part[name] for part in parts]) for name in parts[0]} for parts in retentions
    ]
    negatives = [{name: -each for name, each in block.items()} for block in blocks(stage, "indiscernibility")]
    rank_pairs = [
        (rank_values(one), rank_values(other)) for one, other in zip(deviations, negatives, strict=True)
    ]
    return [{name: (one[name] + other[name]) / 2 for name in one} for one, other in rank_pairs]


def deviation(retentions: list[float]) -> float:
    """The sum of distances from 1, without undefined retentions, as for a class forgotten whole."""
    numbers = [each for each in map(finite, retentions) if each is not None]
    return sum(abs(1 - each) for each in numbers) if numbers else float("nan")


def agreement_of(record: Record) -> Agreement:
    """Kendall's rank correlation of the order over all stages with the published one, without failures."""
    stages = record["stages"].values()
    failed_names = {name for stage in stages for name in failures(stage)}
    return agreement({name: rank for name, rank in ranks_of(*stages).items() if name not in failed_names})


def failures(stage: Record) -> dict[str, str]:
    """The reasons of the methods that failed."""
    return {name: row["failed"] for name, row in stage["methods"].items() if row["failed"] is not None}


def summary(record: Record) -> dict[str, Any]:
    """All figures as plain values."""
    order_agreement = agreement_of(record)
    stages = {
        name: {"methods": figures_of(stage), "ranks": ranks_of(stage), "seeds": len(stage["seeds"])}
        for name, stage in record["stages"].items()
    }
    return {"stages": stages, "agreement": {"tau": order_agreement.tau, "pairs": order_agreement.pairs}}

"""How much do models differ that were retrained without a class? Trains more of them than `erase.py` does.

    python benchmarks/erase_retrained.py digits --record records/erase-digits-retrained.json
    python benchmarks/erase_retrained.py fashion-mnist --record records/erase-fashion-mnist-retrained.json

With those of `erase.py` they are five for each class. `erase_tables.py --retrained` reads both records. An
interrupted command resumes in its folder, which may be that of `erase.py`.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compact import write_compact
from erase import PLANS, class_stages
from frontier import print_progress

from unweave.audits.summary import mean
from unweave.bench.cell import REFERENCE, run_reference
from unweave.bench.stage import Stage
from unweave.bench.stage_record import calibration_margins, read_values
from unweave.bench.workers import Job, run_jobs, workers
from unweave.record import record

SEEDS = {"digits": (3, 4), "fashion-mnist": (1, 2, 3, 4)}
"""The seeds of the further models: `erase.py` trains those of its recipe."""


def train_models(stages: Sequence[Stage], seeds: Sequence[int], jobs: int) -> None:
    """Trains and measures a model of every stage and seed, which its stage keeps."""
    work = [
        Job(f"{stage.name}, retrained model of seed {seed}", run_reference, (stage, seed))
        for seed in seeds
        for stage in stages
    ]
    with workers(jobs) as crew:
        list(run_jobs(crew, work, print_progress))


def describe_models(stage: Stage, seeds: Sequence[int]) -> dict[str, Any]:
    """The figures of each model of a stage, and what two of them differ by."""
    values = [read_values(stage, seed, REFERENCE) for seed in seeds]
    differences = calibration_margins(stage, seeds, "further")
    if differences is None:
        raise ValueError(f"two models differ, found the seeds {list(seeds)}")
    return {
        "reference": {"per_seed": {name: [each[name] for each in values] for name in values[0]}},
        "pairs": {name: each for name, each in differences.expected.items() if name not in values[0]},
        "floor": differences.gap_floor,
    }


def add_models(stage: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """A stage of `erase.py`'s record whose reference includes further models.

    What compares two models stays that of the stage where it has it: the mean gap, distances, the drift from
    the original.
    """
    reference, further_values = stage["reference"], further["reference"]["per_seed"]
    own_values = reference["per_seed"]
    per_seed = {name: [*own_values[name], *further_values.get(name, [])] for name in own_values}
    means = {name: {"value": mean(values)} for name, values in per_seed.items()}
    pairs = {name: {"value": value} for name, value in further["pairs"].items()}
    floor = further["floor"] if stage["floor"] is None else stage["floor"]
    scores = {**pairs, **reference["scores"], **means}
    return {**stage, "reference": {**reference, "per_seed": per_seed, "scores": scores}, "floor": floor}


def main() -> None:
    """Trains, measures and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", choices=SEEDS)
    parser.add_argument("--out", type=Path, default=Path("unweave-erase"), help="keeps models and cells")
    parser.add_argument("--record", type=Path, required=True, help="where the record is written to")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    plan, seeds = PLANS[arguments.data], SEEDS[arguments.data]
    stages = class_stages(plan, plan.classes, arguments.out, "cpu")
    train_models(stages, seeds, arguments.jobs)
    content = {"environment": record.environment(), "recipe": stages[0].table(), "seeds": list(seeds)}
    content["stages"] = {stage.name: describe_models(stage, seeds) for stage in stages}
    write_compact(content, arguments.record)


if __name__ == "__main__":
    main()

"""Tables of the study of text-to-image models: means over concepts and seeds, beside the retrained models.

python benchmarks/text_to_image_tables.py records/text-to-image.json
python benchmarks/text_to_image_tables.py records/text-to-image.json OTHER.json --seeds 1 2
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from erase_tables import table
from text_to_image_aims import ATTACKS, print_aims, tabulate
from text_to_image_record import join_runs

from unweave.record.compact import read_record

FIGURES: Mapping[str, str] = {
    "gap": "gap",
    "ua_trained": "UA trained",
    "ua_paraphrased": "paraphrased",
    "ua_combined": "combined",
    "ra_neighbours": "RA neighbours",
    "ra_others": "others",
    "agreement": "agreement",
    "kid": "KID",
    "relearned_10_at_20": "relearned at 20, %",
    "relearn_10": "half relearned, steps",
    "gradients": "gradients",
    "cpu_seconds": "CPU-seconds",
    "failed": "failed, %",
}
"""The columns of the first table, with their titles."""


ZERO = {"mean": 0.0}
"""The figure of a row that has none."""


def summary(runs: Mapping[str, Any]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """By factor and method, each figure's mean, its standard deviation and the number of runs.

    Args:
        runs: Runs by factor, value, seed and method.
    """
    return {
        factor: {name: statistics(each) for name, each in by_method(values).items()}
        for factor, values in runs.items()
    }


def by_method(values: Mapping[str, Any]) -> dict[str, list[Mapping[str, float]]]:
    """The figures of the runs of each method; of a run that failed, that it did."""
    rows: dict[str, list[Mapping[str, float]]] = {}
    for seeds in values.values():
        for methods in seeds.values():
            for name, run in methods.items():
                rows.setdefault(name, []).append(figures(run))
    return rows


def figures(run: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a run."""
    if run["failed"] is not None:
        return {"failed": 100.0}
    costs = {key: run[key] for key in ("gap", "gradients", "cpu_seconds") if key in run}
    return {**run["values"], **costs, "failed": 0.0}


def statistics(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation and number of each figure."""
    names = dict.fromkeys(name for row in rows for name in row)
    numbers = {name: [row[name] for row in rows if name in row] for name in names}
    return {
        name: {"mean": float(np.mean(each)), "std": float(np.std(each)), "n": len(each)}
        for name, each in numbers.items()
    }


def print_tables(averages: Mapping[str, Any]) -> None:
    """Prints both tables of each factor in Markdown, a row per method; no column of zeros."""
    for factor, methods in averages.items():
        for columns in (FIGURES, ATTACKS):
            names = [key for key in columns if any(row.get(key, ZERO)["mean"] for row in methods.values())]
            rows = {
                name: [cell(row[key]["mean"]) if key in row else "–" for key in names]
                for name, row in methods.items()
            }
            print(f"\n{factor}\n\n{table([columns[key] for key in names], rows)}")


def cell(value: float) -> str:
    """A number with three or more digits."""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"


def main() -> None:
    """Prints all tables of the records together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[], help="training seeds; all if none are given"
    )
    arguments = parser.parse_args()
    records = [read_record(place) for place in arguments.records]
    runs = join_runs(records, arguments.seeds)
    print_tables(summary(runs))
    print_aims(tabulate(runs, records[0]["recipe"]["train"]["steps"]))


if __name__ == "__main__":
    main()

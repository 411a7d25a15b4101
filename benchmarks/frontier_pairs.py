"""Adds the pairs that records of `frontier.py` lack, from the gaps of each seed, without a run.

    python benchmarks/frontier_pairs.py records/frontier-digits.json

It is for records that were written before a pair was compared. A pair that a record has stays as it is. A
record has gaps of four digits, so a new difference can be off by 0.006 points where gaps are above 10.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compact import write_compact
from rows import round_numbers

from unweave.bench.frontier import PAIRS, differences
from unweave.record.compact import read_record

Stage = Mapping[str, Any]


def with_pairs(stage: Stage) -> dict[str, Any]:
    """A stage with the difference of every pair of `PAIRS` at every budget at which both finished.

    Pairs of the record that `PAIRS` lacks follow.
    """
    by_budget = {budget: {"methods": rows_at(budget, stage)} for budget in stage["budgets"]}
    known = dict.fromkeys((row["first"], row["second"]) for row in stage["paired"])
    paired: list[Any] = []
    for pair in dict.fromkeys([*PAIRS, *known]):
        if pair in known:
            paired += [row for row in stage["paired"] if (row["first"], row["second"]) == pair]
        elif set(pair) <= set(stage["methods"]):
            paired += [round_numbers(row) for row in differences(*pair, by_budget)]
    return {**stage, "paired": paired}


def rows_at(budget: float, stage: Stage) -> dict[str, Any]:
    """The methods that finished at a budget, with their gaps, as a stage of a whole record has them."""
    at = [(name, point) for name, each in stage["methods"].items() for point in each["points"]]
    finished = {name: point for name, point in at if point["budget"] == budget and "gaps" in point}
    return {name: {"per_seed": {"gap": point["gaps"]}} for name, point in finished.items()}


def main() -> None:
    """Rewrites the records that the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("records", nargs="+", type=Path)
    for path in parser.parse_args().records:
        record = read_record(path)
        stages = {name: with_pairs(stage) for name, stage in record["stages"].items()}
        for name, stage in stages.items():
            added = len(stage["paired"]) - len(record["stages"][name]["paired"])
            print(f"{path}: {name}: {added} differences added")
        if stages != record["stages"]:
            write_compact({**record, "stages": stages}, path)


if __name__ == "__main__":
    main()

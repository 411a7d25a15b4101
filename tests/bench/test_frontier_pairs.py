"""`benchmarks/frontier_pairs.py` adds what a record lacks, and the records have every pair."""

import sys
from types import ModuleType

import pytest

from pages import ROOT
from unweave.bench.frontier import PAIRS
from unweave.record.compact import read_record

KEYS, NUMBERS = ("first", "second", "budget"), ("difference", "low", "high")
RECORDS = ROOT / "records"
pytestmark = pytest.mark.skipif(not RECORDS.exists(), reason="the records are in the clone only")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("frontier_pairs", None)
    import frontier_pairs

    return frontier_pairs


@pytest.mark.parametrize("path", sorted(RECORDS.glob("frontier-*.json")), ids=lambda path: path.stem)
def test_a_pair_that_a_record_loses_comes_back_to_its_place(script: ModuleType, path) -> None:
    for stage in read_record(path)["stages"].values():
        assert script.with_pairs(stage) == stage
        for pair in dict.fromkeys((row["first"], row["second"]) for row in stage["paired"]):
            assert pair in PAIRS
            others = [row for row in stage["paired"] if (row["first"], row["second"]) != pair]
            again = script.with_pairs({**stage, "paired": others})["paired"]
            assert len(again) == len(stage["paired"]) > len(others)
            for one, row in zip(again, stage["paired"], strict=True):
                assert [one[key] for key in KEYS] == [row[key] for key in KEYS]
                numbers = [[each[key] for key in NUMBERS] for each in (one, row)]
                assert numbers[0] == pytest.approx(numbers[1], abs=0.02), "the gaps are rounded"


def test_a_failed_seed_leaves_a_pair_out_at_that_budget_and_other_pairs_stay(script: ModuleType) -> None:
    small, large, failed = ({"budget": 0.1}, {"budget": 0.3}, {"budget": 0.3, "failed": "NaN"})
    methods = {
        "lur": {"points": [small | {"gaps": [1.0, 2.0]}, failed]},
        "joint": {"points": [small | {"gaps": [2.0, 2.0]}, large | {"gaps": [1.0, 1.0]}]},
    }
    stage = {"budgets": [0.1, 0.3], "methods": methods}
    (row,) = script.with_pairs({**stage, "paired": []})["paired"]
    assert [row[key] for key in (*KEYS, *NUMBERS)] == ["lur", "joint", 0.1, -0.5, None, None]
    other = {"first": "salun", "second": "ascent", "budget": 0.1}
    assert script.with_pairs({**stage, "paired": [other]})["paired"] == [row, other], "others stay"

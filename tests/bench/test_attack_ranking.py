"""`benchmarks/attack_ranking.py`, its record, and the tables of docs/attacks-study.md."""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from pages import ROOT, table
from unweave.record.compact import read_record

RECORDS = ROOT / "records"
PAGE = "docs/attacks-study.md"
RANKING = (
    "| Stage | Methods | Gap, U-LiRA | Gap, worst decile | Gap, AUC of RMIA | U-LiRA, AUC of RMIA "
    "| PASSes taken away |"
)
LOW = "| Model | 0.3: audit, gap | U-LiRA | worst decile | 0.45: audit, gap | U-LiRA | worst decile |"
HIGH = "| Model | 0.6: audit, gap | U-LiRA | worst decile |"
pytestmark = pytest.mark.skipif(not RECORDS.exists(), reason="the records are in the clone only")

SCRIPT = "attack_ranking"


def test_the_record_is_that_of_the_other_records(script: ModuleType) -> None:
    summary, stored_record = script.summarize(RECORDS), read_record(RECORDS / "attack-ranking.json")
    assert json.loads(json.dumps(summary["stages"])) == stored_record["stages"]


def test_equal_and_opposite_orders_and_a_pass_that_stays(script: ModuleType) -> None:
    def method(gap: float, value: float) -> dict[str, Any]:
        figure = {"value": value, "low": value - 0.02, "high": 1, "retrained": 0.5, "null_band": [0.48, 0.52]}
        return {"verdict": "PASS", "gap": gap, "attacks": dict.fromkeys(script.RANKED, figure)}

    methods = {str(i): method(i, 0.53 + i / 50) for i in range(6)}
    assert script.rank(methods)["gap, u-lira: accuracy"] == {"tau": 1.0, "p": 0.003, "methods": 6}
    assert script.overturned_passes(methods) == ["1", "2", "3", "4", "5"]
    for i, each in enumerate(methods.values()):
        each["gap"] = -i
    assert script.rank(methods)["gap, u-lira: accuracy"]["tau"] == -1.0


def test_the_page_has_the_correlations_of_the_record() -> None:
    rows = table(PAGE, RANKING)
    for stage, each in read_record(RECORDS / "attack-ranking.json")["stages"].items():
        _, methods, *cells, lost_passes = rows[stage]
        expected = [
            f"{pair['tau']:.2f} (p {'< 0.01' if pair['p'] < 0.01 else '= ' + format(pair['p'], '.2f')})"
            for pair in each["kendall"].values()
        ]
        assert cells == expected and int(methods) == len(each["methods"])
        assert lost_passes == f"{len(each['taken away'])} of {each['passes']}"


def ulira_cells(row: Mapping[str, Any]) -> list[str]:
    accuracy, worst_decile = (row["attacks"][f"u-lira: {name}"] for name in ("accuracy", "worst decile"))
    return [
        "{value:.3f} [{low:.3f}, {high:.3f}]".format(**accuracy),
        f"{worst_decile['value']:.2f}",
    ]


def test_the_page_has_the_figures_of_the_records() -> None:
    two = table(PAGE, LOW)
    one = table(PAGE, HIGH)
    stages = read_record(RECORDS / "attack-ranking.json")["stages"]
    for budget, cells_by_method, first in (("0.3", two, 1), ("0.45", two, 4), ("0.6", one, 1)):
        rows = read_record(RECORDS / f"shadows-digits-trace-at-{budget}.json")["rows"]
        assert cells_by_method.keys() == rows.keys()
        for name, cells in cells_by_method.items():
            verdict_cell, *figures = cells[first : first + 3]
            assert figures == ulira_cells(rows[name]), (budget, name)
            if name not in ("retrain", "original"):
                method = stages[f"digits-trace@{budget}"]["methods"][name]
                assert verdict_cell == f"{method['verdict']} {method['gap']:.2f}", (budget, name)

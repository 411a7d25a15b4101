"""`benchmarks/attacks_by_method.py`, its record, and the table of docs/attacks-study.md."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.tiny import tiny
from pages import ROOT, table
from unweave.audits.attack_runs.plan import choose_attacks
from unweave.bench.stage import Stage
from unweave.record.compact import read_record

PAGE = "docs/attacks-study.md"
ORDERS = "Methods | Kendall's tau with the gap | PASSes taken away |"
RECORD = ROOT / "records" / "attacks-by-method.json"
in_the_clone = pytest.mark.skipif(not RECORD.exists(), reason="the records are in the clone only")

SCRIPT = "attacks_by_method"


def test_a_model_is_attacked_beside_its_original_and_examined_once(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, attacks = Stage(tiny(), tmp_path), choose_attacks("compression,update-alignment")
    seed = script.AttackedSeed(stage, 0, attacks)
    figures = seed.attack(seed.examine(seed.unlearn("finetune")))
    (figure,) = (each for name, each in figures.items() if name.startswith("update-alignment"))
    areas = [each["auc"].value for each in seed.nulls["update-alignment"].references]
    assert figure["retrained"] == pytest.approx(sum(areas) / len(areas)) and not figure["found"]
    assert not any(name.startswith("update-alignment") for name in seed.attack(seed.case.unlearned))
    monkeypatch.setattr(script, "examine_with", None)  # nothing is examined again
    second_seed = script.AttackedSeed(stage, 0, attacks)
    assert second_seed.attack(second_seed.examine(second_seed.unlearn("finetune"))) == figures


def row(gap: float, verdict: str, margins: float, n_found: int) -> Mapping[str, Any]:
    which = [i < n_found for i in range(3)]
    figures = {"zrf: one": {"margins": margins, "found": which}}
    figures["zrf: other"] = {"margins": 0.0, "found": [*which[1:], False]}  # finds nobody else
    return {"failed": None, "gap": gap, "verdict": verdict, "figures": figures}


def test_orders_are_of_methods_alone_and_most_models_must_be_found_by_any_figure(script: ModuleType) -> None:
    one = row(1, "PASS", 2.0, 1)
    one["figures"]["rmia: auc"] = {"margins": 1.2, "found": [False, False, True]}
    assert [script.cell(one, each) for each in ("zrf", "rmia", script.ANY)] == [
        "2.0 (1)",
        "1.2 (1)",
        "2.0 (2)",
    ]
    assert script.overturned_passes({"one": one}, "zrf") == []
    assert script.overturned_passes({"one": one}, script.ANY) == ["one"]
    rows = {str(i): row(i, "PASS", 2 * i, n_found) for i, n_found in enumerate((0, 1, 2, 3))}
    rows |= {"original": row(99, "FAIL", 0, 3), "failing": {"failed": "NaN"}}
    assert script.rank(rows, "zrf") == {"tau": 1.0, "p": 0.083, "methods": 4}
    assert script.overturned_passes(rows, "zrf") == ["2", "3"]
    assert script.rank(rows, "rmia") == {"tau": None, "p": None, "methods": 0}
    content = {"methods": rows, "kendall": {"zrf": script.rank(rows, "zrf")}, "passes": ["0", "1", "2", "3"]}
    lines = script.summarize({**content, "taken away": {"zrf": ["2", "3"]}})
    assert "FAILED: NaN" in lines[-2] and lines[-1].endswith("takes away 2 of 4 PASSes: 2, 3")


@in_the_clone
def test_the_page_and_the_orders_are_those_of_the_record(script: ModuleType) -> None:
    for recipe, content in read_record(RECORD)["recipes"].items():
        compare_with_page(script, recipe, content)


def compare_with_page(script: ModuleType, recipe: str, content: Mapping[str, Any]) -> None:
    rows, attacks = content["methods"], content["taken away"]
    cells_by_method = table(PAGE, f"| {recipe} | audit, gap | {' | '.join(attacks)} |")
    orders = table(PAGE, f"| {recipe} | {ORDERS}")
    assert cells_by_method.keys() == rows.keys() and orders.keys() == attacks.keys()
    for name, cells in cells_by_method.items():
        if rows[name]["failed"] is not None:
            assert cells[1:] == ["failed", *"–" * len(attacks)]
            continue
        verdict_cell = f"{rows[name]['verdict']} {rows[name]['gap']:.2f}"
        assert cells[1:] == [verdict_cell, *(script.cell(rows[name], each) for each in orders)]
    for attack, (_, methods, order, cell) in orders.items():
        losses = script.overturned_passes(rows, attack)
        assert losses == content["taken away"][attack]
        assert cell == f"{len(losses)} of {len(content['passes'])}" + "".join(
            f", `{each}`" for each in losses
        )
        if attack != script.ANY:
            rank = script.rank(rows, attack)
            assert rank == content["kendall"][attack]
            assert (int(methods), order) == (rank["methods"], f"{rank['tau']:.2f} (p = {rank['p']:.3f})")

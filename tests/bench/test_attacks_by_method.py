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
from unweave.record.files import read_object

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
    found = seed.attack(seed.examine(seed.unlearn("finetune")))
    (figure,) = (each for name, each in found.items() if name.startswith("update-alignment"))
    others = [each["auc"].value for each in seed.nulls["update-alignment"].references]
    assert figure["retrained"] == pytest.approx(sum(others) / len(others)) and not figure["found"]
    assert not any(name.startswith("update-alignment") for name in seed.attack(seed.case.unlearned))
    monkeypatch.setattr(script, "examine_with", None)  # nothing is examined again
    again = script.AttackedSeed(stage, 0, attacks)
    assert again.attack(again.examine(again.unlearn("finetune"))) == found


def row(gap: float, verdict: str, margins: float, found: int) -> Mapping[str, Any]:
    which = [i < found for i in range(3)]
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
    rows = {str(i): row(i, "PASS", 2 * i, found) for i, found in enumerate((0, 1, 2, 3))}
    rows |= {"original": row(99, "FAIL", 0, 3), "failing": {"failed": "NaN"}}
    assert script.rank(rows, "zrf") == {"tau": 1.0, "p": 0.083, "methods": 4}
    assert script.overturned_passes(rows, "zrf") == ["2", "3"]
    assert script.rank(rows, "rmia") == {"tau": None, "p": None, "methods": 0}
    found = {"methods": rows, "kendall": {"zrf": script.rank(rows, "zrf")}, "passes": ["0", "1", "2", "3"]}
    shown = script.summarize({**found, "taken away": {"zrf": ["2", "3"]}})
    assert "FAILED: NaN" in shown[-2] and shown[-1].endswith("takes away 2 of 4 PASSes: 2, 3")


@in_the_clone
def test_the_page_and_the_orders_are_those_of_the_record(script: ModuleType) -> None:
    for recipe, found in read_object(RECORD)["recipes"].items():
        compare_with_page(script, recipe, found)


def compare_with_page(script: ModuleType, recipe: str, found: Mapping[str, Any]) -> None:
    rows, attacks = found["methods"], found["taken away"]
    said = table(PAGE, f"| {recipe} | audit, gap | {' | '.join(attacks)} |")
    orders = table(PAGE, f"| {recipe} | {ORDERS}")
    assert said.keys() == rows.keys() and orders.keys() == attacks.keys()
    for name, cells in said.items():
        if rows[name]["failed"] is not None:
            assert cells[1:] == ["failed", *"–" * len(attacks)]
            continue
        audited = f"{rows[name]['verdict']} {rows[name]['gap']:.2f}"
        assert cells[1:] == [audited, *(script.cell(rows[name], each) for each in orders)]
    for attack, (_, methods, order, taken) in orders.items():
        lost = script.overturned_passes(rows, attack)
        assert lost == found["taken away"][attack]
        assert taken == f"{len(lost)} of {len(found['passes'])}" + "".join(f", `{each}`" for each in lost)
        if attack != script.ANY:
            kept = script.rank(rows, attack)
            assert kept == found["kendall"][attack]
            assert (int(methods), order) == (kept["methods"], f"{kept['tau']:.2f} (p = {kept['p']:.3f})")

"""`benchmarks/power.py`: a row with attacks stands beside the row without them."""

import json
from pathlib import Path
from types import ModuleType

SCRIPT = "power"


def test_a_row_replaces_only_that_of_the_same_audits(script: ModuleType, tmp_path: Path) -> None:
    record = tmp_path / "power.json"
    first_row = {"stage": "digits-class", "change": {}, "audits": 1}
    for row in (
        first_row,
        {**first_row, "attacks": "rmia"},
        {**first_row, "attacks": "default"},
        {**first_row, "calibration": 20},
        {**first_row, "audits": 2},
    ):
        script.keep(row, record)
    rows = json.loads(record.read_text(encoding="utf-8"))["rows"]
    assert [(each.get("attacks"), each["audits"]) for each in rows] == [
        ("rmia", 1),
        ("default", 1),
        (None, 1),
        (None, 2),
    ]

"""`benchmarks/true_size.py`, without measuring."""

import json
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from pages import ROOT

SCRIPT = "true_size"
RECORD = ROOT / "records" / "true-size.json"


@pytest.mark.skipif(not RECORD.parent.exists(), reason="the records are in the clone only")
def test_rows_of_the_true_size_are_those_of_their_steps(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place, stored_record = tmp_path / "true.json", json.loads(RECORD.read_text())
    place.write_text(json.dumps(stored_record))
    (tmp_path / "model_index.json").touch()
    monkeypatch.setattr(script, "in_own_process", lambda folder, name, what, steps: {"steps": steps})
    for steps in (1, 20):
        script.measure(tmp_path, place, ["uce"], steps, ["uce"])
    rows = json.loads(place.read_text())["rows"]
    assert rows.pop("uce, 20 steps")["check"]["steps"] == 20
    assert rows == stored_record["rows"]

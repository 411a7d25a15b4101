"""`benchmarks/large_models.py`, with models of two thin layers."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unweave.tasks.low_rank_layers import find_layers

pytest.importorskip("peft")

SCRIPT = "large_models"


@pytest.mark.parametrize(("model", "layers"), [("gpt-2", 2 * 4 + 1), ("vit-b", 2 * 6 + 2)])
def test_a_run_and_what_check_foresees_are_measured(script: ModuleType, model: str, layers: int):
    figure = script.Figure(model, "nested", "lora", processes=1, steps=2, batch=2, small=True)
    project = figure.project(figure.build())
    assert len(find_layers(project.model)) == layers
    split = project.split(torch.arange(0, script.EXAMPLES, 4))
    state = {name: value.clone() for name, value in project.model.state_dict().items()}
    for measurement in (figure.run(project, split), figure.foresee(project, split)):
        assert measurement["peak_mib"] > 100 and measurement["seconds_per_step"] > 0
    assert all(torch.equal(value, state[name]) for name, value in project.model.state_dict().items())


@pytest.mark.slow
def test_a_figure_that_the_record_has_is_not_measured_again(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    place = tmp_path / "large.json"
    flags = ["--small", "--models", "gpt-2", "--modes", "lagged", "--trained", "lora", "--processes", "2"]
    monkeypatch.setattr(sys, "argv", ["large_models.py", *flags, "--steps", "1", "--record", str(place)])
    script.main()
    content, output = place.read_bytes(), capsys.readouterr().out
    (figure,) = json.loads(content)["figures"].values()
    assert len(figure["peak_mib"]) == len(figure["foreseen"]["peak_mib"]) == 2 and b'": ' not in content
    script.main()
    assert place.read_bytes() == content and capsys.readouterr().out == output


def test_a_figure_of_other_steps_is_measured_and_an_earlier_one_keeps_its_environment(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sizes = {"steps": 4, "batch": 2, "rank": 8}
    foreseen = {"peak_mib": [3.0], "seconds_per_step": 3.0}
    row = {"peak_mib": [2.0], "seconds_per_step": 2.0, "foreseen": foreseen, "environment": {"date": "then"}}
    content = {"figures": {"gpt-2, lagged, lora, 1 processes, steps 4, batch 2, rank 8": {**row, **sizes}}}
    place = tmp_path / "large.json"
    place.write_text(json.dumps(content))
    new_measurement = {"peak_mib": [1.0], "seconds_per_step": 1.0}
    monkeypatch.setattr(script, "in_own_processes", lambda figure, what: new_measurement)
    monkeypatch.setattr(script, "environment", lambda: {"date": "now"})
    flags = ["--models", "gpt-2", "--modes", "lagged", "--trained", "lora", "--batch", "2"]
    for steps in ("4", "5"):
        monkeypatch.setattr(
            sys, "argv", ["large_models.py", *flags, "--steps", steps, "--record", str(place)]
        )
        script.main()
    first, second = json.loads(place.read_text())["figures"].values()
    assert first == {**row, **sizes}
    assert second["peak_mib"] == [1.0] and second["environment"] == {"date": "now"}

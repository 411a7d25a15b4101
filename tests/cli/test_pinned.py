"""A run is only audited with the original that it came from."""

import json
from pathlib import Path

import pytest
import torch

import projects
from for_each import for_each
from unweave.cli.inputs import run_folder
from unweave.record import checkpoint

LOADING = """
def load():
    model = Net()
    model.load_state_dict(torch.load(__file__.replace("project.py", "mine.pt"), weights_only=True))
    return given(model=model)
"""


@pytest.fixture
def weights(tmp_path) -> Path:
    """Weights that a project loads."""
    place = projects.project(tmp_path / "mine", LOADING)
    space = {}
    exec(Path(place).read_text(), space)
    torch.save(space["Net"]().state_dict(), tmp_path / "mine" / "mine.pt")
    return tmp_path / "mine" / "mine.pt"


@pytest.fixture
def made(run, here, weights) -> Path:
    """What forget wrote of it."""
    method_flags = ("--random", 0.3, "--method", "finetune", "--set", "how.epochs=1", "--quiet")
    assert run("forget", weights.with_name("project.py"), *method_flags).code == 0
    run_folder.open_run.cache_clear()
    return here / "forgotten"


def overwritten(weights: Path) -> None:
    """Moves one weight."""
    state = torch.load(weights, weights_only=True)
    state["last.bias"][1] += 1e-6
    torch.save(state, weights)


def test_another_original_is_refused(refused, made, weights):
    overwritten(weights)
    refused("the original is not the one .* run forget again", "audit", made, "--references", 0, "--quiet")


def test_the_same_one_is_accepted(run, made):
    assert run("audit", made, "--references", 0, "--quiet").code == 1


def test_a_run_of_an_earlier_version_is_accepted(run, made, weights):
    sidecar = json.loads((made / "model.json").read_text())
    assert sidecar.pop("original")
    (made / "model.json").write_text(json.dumps(sidecar))
    overwritten(weights)
    assert run("audit", made, "--references", 0, "--quiet").code == 1


@for_each("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_the_digest_sees_names_types_shapes_and_bytes(dtype):
    value = torch.tensor([0, 1, 0, 1]).to(dtype)
    states = [{"a": value}, {"b": value}, {"a": value.reshape(2, 2)}, {"a": ~(value != 0)}, {"a": value[1]}]
    digests = [checkpoint.contents(state) for state in states]
    assert len(set(digests)) == len(states)
    assert checkpoint.contents({"a": value.reshape(2, 2).T.contiguous().T.reshape(4)}) == digests[0]

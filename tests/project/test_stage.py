"""A stage whose original is given: what its cells and its searches depend on, and what they practise on."""

from pathlib import Path

import pytest
import torch
from torch import nn

import projects
from unweave.project import stage as given
from unweave.project.stage import Given, Place, stage_of

READ = """
def load():
    model = Net()
    model.load_state_dict(torch.load(__file__ + ".pt", weights_only=True))
    return given(model=model)
"""


@pytest.fixture
def reading(tmp_path: Path) -> Path:
    """A project whose original lies in a file."""
    path = Path(projects.project(tmp_path / "mine", READ))
    write(path, 0.0)
    return path


def write(path: Path, bias: float) -> None:
    """Writes an original's weights."""
    first, last = nn.Linear(8, 32), nn.Linear(32, 3)
    nn.init.constant_(last.bias, bias)
    state = {"first": first.state_dict(), "last": last.state_dict()}
    torch.save({f"{name}.{key}": each for name in state for key, each in state[name].items()}, f"{path}.pt")


def stage(path: Path, forget: tuple[int, ...] = (1, 2, 3)) -> Given:
    """The stage in a new process."""
    for remembered in (given.project_of, given.split_of, given.weights_of):
        remembered.cache_clear()
    return stage_of(Place(str(path), None, None), forget, path.parent / "run", "cpu")


def test_other_weights_are_another_original_and_the_retrained_models_stay(reading):
    first = stage(reading)
    known, model = first.known(), first.trained("retain", 0).model
    write(reading, 1.0)
    second = stage(reading)
    assert second.known() != known and second.known()["sha256"] == known["sha256"]
    kept = second.trained("retain", 0).model
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), kept.parameters(), strict=True))
    assert len(list((reading.parent / "run" / "models").iterdir())) == 1

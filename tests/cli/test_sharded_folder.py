"""A folder of `forget` with a sharded model: damage is seen, and an audit says what it needs."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import projects
from unweave.cli.inputs.forget_folder import is_done
from unweave.cli.project import load
from unweave.record import checkpoint
from unweave.weights.sharded_files import save_sharded

IDS = ("--ids", "r0/3,r0/5,r0/8")
SHORT = ("--method", "finetune", "--set", "how.epochs=1", "--quiet")


@pytest.fixture
def place(tmp_path) -> str:
    return projects.project(tmp_path / "mine", projects.TRAINED)


@pytest.fixture
def folder(run, here, place) -> Path:
    """A finished run whose folder also holds the same model sharded, as after a crash."""
    assert run("forget", place, *IDS, *SHORT).code == 0
    folder = here / "forgotten"
    model = load(place).fresh_model()
    facts = checkpoint.load(folder, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is one process
        save_sharded(folder, model, {"split": facts["split"]})
    return folder


def remove_whole_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.json").unlink()


@pytest.mark.parametrize("cut", [0, 4])
def test_a_run_beside_an_older_sharded_model_is_done_again(run, place, folder, cut: int):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) - cut])
    report = json.loads(run("forget", place, *IDS, *SHORT, "--json").out)
    assert (report["out"], report["done_before"]) == ("forgotten", False)
    assert weights.read_bytes() == content and not (folder / "sharded").exists()


def lose(pieces: Path) -> None:
    next(pieces.glob("*.distcp")).unlink()


def cut(pieces: Path) -> None:
    file = next(pieces.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize(("damage", "done"), [(Path.exists, True), (lose, False), (cut, False)])
def test_a_sharded_model_is_done_if_its_files_are_whole(place, folder, damage: Callable, done: bool):
    remove_whole_files(folder)
    damage(folder / "sharded")
    assert is_done(folder, load(place), additions=False, sharded=True) is done


def test_an_audit_names_the_sharded_model(refused, folder):
    remove_whole_files(folder)
    refused(
        r"needs model.safetensors, found only .*forgotten/sharded: .* without --save-sharded$",
        "audit",
        folder,
    )
